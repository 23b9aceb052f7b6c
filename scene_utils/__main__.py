"""The study's commands; `python -m scene_utils COMMAND -h` explains each."""

import argparse
import json
import sys
from pathlib import Path

from scene_utils import paths
from scene_utils.paths import atomic, write_text


def data(arguments: argparse.Namespace) -> None:
    from scene_utils.dataset import download

    failed = False
    if not arguments.check_only:
        for item in download.registry():
            try:
                print(f"{download.fetch(item).relative_to(paths.ROOT)}: ok", flush=True)
            except (OSError, ValueError) as error:
                failed = True
                print(f"{item.name}: not fetched: {error}", file=sys.stderr, flush=True)
    if arguments.data_root:
        root = Path(arguments.data_root)
        print(download.check_flickr30k(root, paths.cache("flickr30k")))
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
        print(f"{len(problems)} files could not be read:", file=sys.stderr)
        print(problems.head(10).to_string(index=False), file=sys.stderr)
        if len(problems) > 10:
            print(f"... and {len(problems) - 10} more", file=sys.stderr)


def ground(arguments: argparse.Namespace) -> None:
    from scene_utils import images

    # Before the seconds that loading a model takes.
    drawn = picture = images.open_image(arguments.picture)
    from scene_utils.models import load_model
    from scene_utils.widget import suggest

    phrases, sentence = [arguments.phrase], ""
    if "[" in arguments.phrase:
        phrases = suggest.split_sentence(arguments.phrase)
        sentence = suggest.whole_sentence(arguments.phrase)
    model = load_model(arguments.model, arguments.weights)
    for answer in model.ground(picture, phrases, arguments.top_k, sentence):
        sides = ("x_min", "y_min", "x_max", "y_max")
        found = [dict(zip(sides, map(float, box), strict=True)) for box in answer.boxes.round(1)]
        if answer.scores is not None:
            for box, score in zip(found, answer.scores.round(4), strict=True):
                box["score"] = float(score)
        drawn = images.with_box(drawn, answer.boxes[0])
        if arguments.json:
            words = {"words": dict(answer.words), "unknown": answer.unknown}
            words |= {"unread": answer.unread}
            print(json.dumps({"phrase": answer.phrase, "boxes": found} | words))
            continue
        if sentence:
            print(answer.phrase)
        for rank, box in enumerate(found, start=1):
            print(rank, "  ".join(f"{name} {value:g}" for name, value in box.items()))
        if answer.unknown:
            print("words that the model does not know:", ", ".join(answer.unknown))
        if answer.unread:
            print("words that it does not read, the last of the phrase:", " ".join(answer.unread))
    if arguments.save:
        with atomic(Path(arguments.save)) as temporary:
            drawn.save(temporary)


def evaluate(arguments: argparse.Namespace) -> None:
    from scene_utils.analysis import metrics
    from scene_utils.dataset import entities
    from scene_utils.study import tables

    ids = entities.read_ids(Path(arguments.data_root), arguments.split)
    found = entities.read_entities(arguments.data_root, dict.fromkeys(ids, arguments.split))
    predictions = metrics.read_predictions(arguments.predictions)
    if arguments.only_answered:
        answered = found.phrases.image_id.isin(predictions.image_id)
        found = entities.Entities(found.phrases[answered], found.boxes, found.problems)
    result = metrics.evaluate(
        predictions, found.phrases, found.boxes, arguments.resamples, arguments.seed
    )
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

    root = Path(arguments.data_root)
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


def table(arguments: argparse.Namespace) -> None:
    from scene_utils.analysis import metrics_file
    from scene_utils.study import readme_tables, run_notebook

    metrics = metrics_file.read_metrics(paths.figures(arguments.profile) / "metrics.json")
    print(readme_tables.markdown(metrics, arguments.protocol))
    took = run_notebook.durations(paths.build(arguments.profile))
    if took:
        print("\nseconds: " + ", ".join(f"{name} {took[name]:.0f}" for name in took))


def readme(arguments: argparse.Namespace) -> None:
    from scene_utils.study import readme_tables

    differ = []
    for path in map(Path, arguments.file or readme_tables.files()):
        text = path.read_text(encoding="utf-8")
        filled = readme_tables.fill(text)
        if filled == text:
            print(f"{path}: tables are as in metrics.json")
        elif arguments.check:
            differ.append(f"{path}: tables differ from metrics.json. Run `make readme`")
        else:
            write_text(path, filled)
            print(f"{path}: tables written")
    if differ:
        sys.exit("\n".join(differ) + " and commit it")


def cache_verify(arguments: argparse.Namespace) -> None:
    from scene_utils.features import store

    folders = [Path(folder) for folder in arguments.folder]
    if not folders:
        made = (paths.DATA / "cache").glob(f"*/features/*/{store.MANIFEST}")
        folders = sorted(path.parent for path in made)
    damaged = False
    for folder in folders:
        problems = store.verify(folder)
        damaged = damaged or bool(problems)
        print("\n".join(problems) or f"{folder}: every shard is as it was written")
    if damaged:
        sys.exit("some shards are damaged: do what is said above, then run `make features`")
    if not folders:
        print("no feature store yet: run `make features`")


def run_ablation(arguments: argparse.Namespace) -> None:
    from scene_utils.study import ablation, ablation_table, settings

    chosen = settings.load(arguments.profile, changes=arguments.changes)
    done = ablation.run(
        paths.cache(arguments.profile),
        chosen.root,
        paths.figures(arguments.profile) / "ablation.json",
        [name for name in arguments.rows.split(";") if name] or list(ablation.ROWS),
        [int(seed) for seed in arguments.seeds.split(",")],
        epochs=chosen.train.epochs,
        pictures_per_step=chosen.grid.pictures_per_step,
        progressive=chosen.grid.progressive,
    )
    print(ablation_table.table(done).to_string())
    print("run notebook 04b for the figures")


def notebook(arguments: argparse.Namespace) -> None:
    from scene_utils.study import run_notebook

    parameters = dict(pair.split("=", 1) for pair in arguments.parameter)
    run_notebook.run_notebook(Path(arguments.script), Path(arguments.target), parameters)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m scene_utils", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")

    command = commands.add_parser("data", help="fetch weights and vectors, check a data root")
    command.add_argument("--data-root", default="", help="folder of Flickr30k Entities to check")
    command.add_argument("--check-only", action="store_true", help="download nothing")
    command.set_defaults(run=data)

    command = commands.add_parser("predict", help="boxes for every phrase of a list of pictures")
    command.add_argument("--data-root", required=True, help="folder with Sentences and pictures")
    command.add_argument("--split", required=True, help="NAME of NAME.txt there, or a path to .txt")
    command.add_argument("--model", default="grid", help="grid, source, or a folder of a training")
    command.add_argument("--out", required=True, help="parquet file to write")
    command.add_argument("--weights", default=None, help="backbone weights, if elsewhere")
    command.set_defaults(run=predict)

    command = commands.add_parser("ground", help="the box of a phrase in one picture")
    command.add_argument("picture", help="JPEG, PNG, ...")
    command.add_argument(
        "phrase",
        help='such as "the man in the red hat", or a sentence with '
        'its phrases in brackets: "[a man] in [a red hat]"',
    )
    command.add_argument("--top-k", type=int, default=5, help="boxes to give, best first")
    command.add_argument("--model", default="grid", help="grid, source, or a folder of a training")
    command.add_argument("--weights", default=None, help="of a source model's backbone, elsewhere")
    command.add_argument("--json", action="store_true", help="print a line of JSON a phrase")
    command.add_argument("--save", default="", help="also write the picture with the best boxes")
    command.set_defaults(run=ground)

    command = commands.add_parser("ablation", help="train and score rows of the ablation")
    command.add_argument("--profile", required=True)
    command.add_argument("--changes", default="", help="settings that differ, as name=value")
    command.add_argument("--rows", default="", help="names with ; between them; default: all")
    command.add_argument("--seeds", default="0", help="with , between them")
    command.set_defaults(run=run_ablation)

    command = commands.add_parser("evaluate", help="score a prediction file")
    command.add_argument("--predictions", required=True, help="parquet, CSV or JSON file")
    command.add_argument("--data-root", required=True, help="folder with the annotations")
    command.add_argument("--split", required=True, help="NAME of NAME.txt there, or a path to .txt")
    command.add_argument(
        "--only-answered",
        action="store_true",
        help="score only pictures that the file has predictions for; the counts say how many",
    )
    command.add_argument("--resamples", type=int, default=1000, help="bootstrap draws")
    command.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    command.add_argument("--out", default="", help="also write the result as JSON")
    command.set_defaults(run=evaluate)

    command = commands.add_parser("references", help="what can be had without looking")
    command.add_argument("--data-root", required=True, help="folder with the annotations")
    command.add_argument("--split", default="test", help="NAME of NAME.txt there, or a path")
    command.add_argument(
        "--at-hand",
        action="store_true",
        help="only pictures that the data root holds, of the split and of train",
    )
    command.add_argument("--protocol", default="merged", choices=["merged", "any"])
    command.add_argument("--resamples", type=int, default=1000, help="bootstrap draws")
    command.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    command.add_argument("--out", default="", help="also write the result as JSON")
    command.set_defaults(run=references)

    command = commands.add_parser("table", help="a profile's result table as Markdown")
    command.add_argument("--profile", default="sample")
    command.add_argument("--protocol", default="merged", choices=["merged", "any"])
    command.set_defaults(run=table)

    command = commands.add_parser("readme", help="write tables of metrics.json into Markdown")
    command.add_argument("file", nargs="*", help="default: README.md and the pages of results")
    command.add_argument("--check", action="store_true", help="change nothing, fail if it differs")
    command.set_defaults(run=readme)

    command = commands.add_parser("cache", help="look after the stores of features")
    kinds = command.add_subparsers(required=True, metavar="what")
    command = kinds.add_parser("verify", help="compare every shard with its hash")
    command.add_argument("folder", nargs="*", help="stores; default: all of data/cache")
    command.set_defaults(run=cache_verify)

    command = commands.add_parser("notebook", help="execute a notebook script")
    command.add_argument("script")
    command.add_argument("target")
    command.add_argument("-p", "--parameter", action="append", default=[], metavar="NAME=VALUE")
    command.set_defaults(run=notebook)

    arguments = parser.parse_args()
    try:
        arguments.run(arguments)
    except (OSError, RuntimeError, ValueError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
