"""The study's commands; `python -m scene_utils COMMAND -h` explains each."""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

from scene_utils import paths
from scene_utils.paths import atomic, write_text

# Each command imports what it needs alone: an answer, a notebook and the help start at once.


def data(arguments: argparse.Namespace) -> None:
    from scene_utils.dataset import download

    failed = False
    for item in [] if arguments.check_only else download.registry():
        try:
            print(f"{download.fetch(item).relative_to(paths.ROOT)}: ok", flush=True)
        except (OSError, ValueError) as error:
            failed = True
            print(f"{item.name}: not fetched: {error}", file=sys.stderr, flush=True)
    if arguments.data_root:
        print(download.check_flickr30k(Path(arguments.data_root)))
    else:
        print(download.FLICKR30K_STEPS)
    if failed:
        sys.exit("some downloads failed: run again to resume them; the embedded sample needs none")


def predict(arguments: argparse.Namespace) -> None:
    from scene_utils import models

    model = models.load_model(arguments.model, arguments.weights)
    table, problems = models.predict_split(model, arguments.data_root, arguments.split)
    with atomic(Path(arguments.out)) as temporary:
        table.to_parquet(temporary, index=False)
    phrases = (table["rank"] == 1).sum()
    found = f"{len(table):,} boxes for {phrases:,} phrases of {table.image_id.nunique():,} pictures"
    print(f"{arguments.out}: {found}")
    if len(problems):
        shown = problems.head(10).to_string(index=False)
        print(f"{len(problems)} files could not be read, the first:\n{shown}", file=sys.stderr)


def ground(arguments: argparse.Namespace) -> None:
    import pandas as pd

    from scene_utils import box_ops, images, models
    from scene_utils.widget import suggest

    # Before the seconds that loading a model takes.
    drawn = picture = images.open_image(arguments.picture)
    phrases, sentence = [arguments.phrase], ""
    if "[" in arguments.phrase:
        phrases = suggest.split_sentence(arguments.phrase)
        sentence = suggest.whole_sentence(arguments.phrase)
    model = models.load_model(arguments.model, arguments.weights)
    each = arguments.instances
    for answer in model.ground(picture, phrases, arguments.top_k, sentence, instances=each):
        table = pd.DataFrame(answer.boxes.round(1), columns=box_ops.COLUMNS)
        if answer.scores is not None:
            table["score"] = answer.scores.round(4)
        found = table.to_dict("records")
        for box in answer.boxes if each else answer.boxes[:1]:
            drawn = images.with_box(drawn, box)
        if arguments.json:
            said = {"phrase": answer.phrase, "boxes": found, "words": dict(answer.words)}
            more = ("present", "unknown", "rare", "unread")
            print(json.dumps(said | {name: getattr(answer, name) for name in more}))
            continue
        if sentence:
            print(answer.phrase)
        for rank, box in enumerate(found, start=1):
            print(rank, "  ".join(f"{name} {value:g}" for name, value in box.items()))
        for notice in suggest.notices([answer], model.vocabulary)[0]:
            print(notice)
    if arguments.save:
        with atomic(Path(arguments.save)) as temporary:
            drawn.save(temporary)


def evaluate(arguments: argparse.Namespace) -> None:
    from scene_utils.analysis import metrics
    from scene_utils.dataset import entities
    from scene_utils.study import tables

    ids = entities.read_ids(arguments.data_root, arguments.split)
    found = entities.read_entities(arguments.data_root, dict.fromkeys(ids, arguments.split))
    predictions = metrics.read_predictions(arguments.predictions)
    asked = found.phrases
    if arguments.only_answered:
        asked = asked[asked.image_id.isin(predictions.image_id)]
    result = metrics.evaluate(predictions, asked, found.boxes, arguments.resamples, arguments.seed)
    result["annotation_problems"] = found.problems.to_dict("records")
    if arguments.out:
        write_text(Path(arguments.out), json.dumps(result, indent=1) + "\n")
    print(
        f"{result['mentions']:,} boxed mentions of {result['images']:,} images; answered "
        f"{result['answered']:,}, the others count as missed; annotation files that could not be "
        f"read: {len(found.problems)}"
    )
    for protocol in metrics.PROTOCOLS:
        print(f"\n{protocol} boxes, 95 % interval by image")
        named = {Path(arguments.predictions).stem: result}
        print(tables.scores(named, protocol).T.to_string())
        print(f"\nrecall at IoU .5, {protocol} box, and recall at 1 in each category, %")
        print(tables.recall(named, protocol).T.to_string())
        print(tables.categories(named, protocol).T.to_string())


def references(arguments: argparse.Namespace) -> None:
    from scene_utils.analysis import metrics
    from scene_utils.analysis import references as blind
    from scene_utils.dataset import entities
    from scene_utils.study import tables

    root = arguments.data_root
    ids = dict.fromkeys(entities.read_ids(root, "train"), "train")
    ids |= dict.fromkeys(entities.read_ids(root, arguments.split), "asked")
    if arguments.at_hand:
        here = entities.image_ids(root)
        ids = {image_id: split for image_id, split in ids.items() if image_id in here}
    found = entities.read_entities(root, ids)
    asked = found.phrases[found.phrases.split == "asked"]
    result = {
        name: metrics.evaluate(table, asked, found.boxes, arguments.resamples, arguments.seed)
        for name, table in blind.predictions(found.phrases, "asked").items()
    }
    one = result["whole image"]
    train = found.phrases[(found.phrases.split == "train") & (found.phrases.n_boxes > 0)]
    where = "pictures at hand, in train too" if arguments.at_hand else "all pictures of the lists"
    print(
        f"{arguments.split}: {one['mentions']:,} boxed mentions of {one['images']:,} images; "
        f"fitted on {len(train):,} of {train.image_id.nunique():,} images ({where})"
    )
    print(f"\n{arguments.protocol} boxes, 95 % interval by image; oracles read the truth")
    table = tables.scores(result, arguments.protocol)
    table.index = [f"{name} (oracle)" if name in blind.ORACLES else name for name in table.index]
    print(table.to_string())
    if arguments.out:
        write_text(Path(arguments.out), json.dumps(result, indent=1) + "\n")


def cache(arguments: argparse.Namespace) -> None:
    from scene_utils.features import store

    made = (paths.DATA / "cache").glob(f"*/features/*/{store.MANIFEST}")
    folders = arguments.folder or sorted(path.parent for path in made)
    found = {folder: store.verify(folder) for folder in folders}
    for folder, problems in found.items():
        print("\n".join(problems) or f"{folder}: every shard is as it was written")
    if any(found.values()):
        sys.exit("some shards are damaged: do what is said above, then run `make features`")
    if not folders:
        print("no feature store yet: run `make features`")


def notebook(arguments: argparse.Namespace) -> None:
    from scene_utils.study import run_notebook

    parameters = dict(pair.split("=", 1) for pair in arguments.parameter)
    run_notebook.run_notebook(arguments.script, arguments.target, parameters)


def widget(arguments: argparse.Namespace) -> None:
    from scene_utils.widget import page

    page.open_page(arguments.profile, arguments.data, arguments.changes)


LIST = "NAME of NAME.txt there, or a path to .txt"
PHRASE = 'such as "the man in the red hat", or a sentence with its phrases in brackets: '
PHRASE += '"[a man] in [a red hat]"'
ANSWERED = "score only pictures that the file has predictions for; the counts say how many"
AT_HAND = "only pictures that the data root holds, of the split and of train"
# Options that several commands share.
SHARED = {
    "--data-root": {"required": True, "help": "folder of Flickr30k Entities' files"},
    "--split": {"required": True, "help": LIST},
    "--model": {"default": "grid", "help": "grid, source, or a folder of a training"},
    "--weights": {"help": "of a source model's backbone, if elsewhere"},
    "--protocol": {"default": "merged", "choices": ["merged", "any"]},
    "--resamples": {"type": int, "default": 1000, "help": "bootstrap draws"},
    "--seed": {"type": int, "default": 0, "help": "of the bootstrap"},
    "--out": {"default": "", "help": "also write the result as JSON"},
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m scene_utils", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")

    def command(run: Callable, text: str, shared: str = "") -> Callable:
        made = commands.add_parser(run.__name__, help=text)
        made.set_defaults(run=run)
        for name in shared.split():
            made.add_argument(name, **SHARED[name])
        return made.add_argument

    add = command(data, "fetch weights and vectors, check a data root")
    add("--data-root", default="", help="folder of Flickr30k Entities to check")
    add("--check-only", action="store_true", help="download nothing")
    shared = "--data-root --split --model --weights"
    add = command(predict, "boxes for every phrase of a list of pictures", shared)
    add("--out", required=True, help="parquet file to write")
    add = command(ground, "the box of a phrase in one picture", "--model --weights")
    add("picture", help="JPEG, PNG, ...")
    add("phrase", help=PHRASE)
    add("--top-k", type=int, default=5, help="boxes to give, best first")
    add("--instances", action="store_true", help="a box of each thing that the phrase names")
    add("--json", action="store_true", help="print a line of JSON a phrase")
    add("--save", default="", help="also write the picture with the best boxes")
    shared = "--data-root --split --resamples --seed --out"
    add = command(evaluate, "score a prediction file", shared)
    add("--predictions", required=True, help="parquet, CSV or JSON file")
    add("--only-answered", action="store_true", help=ANSWERED)
    shared = "--data-root --protocol --resamples --seed --out"
    add = command(references, "what can be had without looking", shared)
    add("--split", default="test", help=LIST)
    add("--at-hand", action="store_true", help=AT_HAND)
    add = command(cache, "look after the stores of features")
    add("what", choices=["verify"], help="compare every shard with its hash")
    add("folder", nargs="*", type=Path, help="stores; default: all of data/cache")
    add = command(notebook, "execute a notebook script")
    add("script", type=Path)
    add("target", type=Path)
    add("-p", "--parameter", action="append", default=[], metavar="NAME=VALUE")
    add = command(widget, "open the query widget as a page, on this machine alone")
    add("--profile", default="sample", help="whose scenes are shown")
    add("--data", default="", help="folder of Flickr30k Entities")
    add("--changes", default="", help="settings that differ, as weights=PATH")

    arguments = parser.parse_args()
    try:
        arguments.run(arguments)
    except (OSError, RuntimeError, ValueError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
