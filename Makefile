# A bare `make` lists the targets. All settings stand in notebooks/profiles.toml; SET changes some
# for one run: make reproduce PROFILE=smoke SET="seed=1 train.epochs=3".
PROFILE ?= sample
DATA    ?=
SET     ?=
PYTHON  ?= $(firstword $(foreach v,3.11 3.12 3.13,$(shell python$(v) -c 'print("python$(v)")' 2>/dev/null)) python3)

BIN   := .venv/bin
RUN   := $(BIN)/python -m scene_utils
BUILD := build/$(PROFILE)
CACHE := data/cache/$(PROFILE)
FIGS  := figures/$(PROFILE)
NAMES := $(basename $(notdir $(wildcard notebooks/*.py)))
BOOKS := $(NAMES:%=$(BUILD)/%.ipynb)
PAGES := $(NAMES:%=$(BUILD)/%.html)

# Notebooks and tests read the folder of real data from the environment, so that no executed
# notebook holds a path of this machine.
ROOT := $(if $(DATA),$(abspath $(DATA)))
ifneq ($(ROOT),)
export FLICKR30K := $(ROOT)
else ifneq ($(filter flickr30k published,$(PROFILE)),)
$(if $(filter reproduce html figures features ablation widget,$(MAKECMDGOALS)),$(error PROFILE=$(PROFILE) needs DATA=<folder of Flickr30k Entities>; `make data` says how to obtain it))
endif

.PHONY: help env lock data reproduce features smoke figures bench ablation readme check-readme html \
  test test-slow check-notebooks lint audit lab widget screenshots clean distclean FORCE
help: ## this list
	@echo 'make TARGET [PROFILE=sample|smoke|flickr30k|published] [DATA=<folder>] [SET="name=value ..."]'
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 18

env: .venv/.done ## create .venv from requirements.lock
.venv/.done: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v <= (3, 13) else "expected Python 3.11 to 3.13, got %d.%d: set PYTHON=python3.12" % v)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@$(BIN)/python -c 'from scene_utils import export, models; [models.load_model(name).ground("data/photos/coffee.jpg", "a cup") for name in models.SHIPPED]'
	@touch $@

lock: ## resolve pyproject.toml into requirements.lock, with hashes, for all platforms
	$(PYTHON) -m venv build/lock && build/lock/bin/pip install --quiet uv==0.13.9
	build/lock/bin/uv pip compile --universal --python-version 3.11 --generate-hashes \
	  --extra study --extra widget --extra browser --extra test --no-header --quiet -o requirements.lock pyproject.toml
data: .venv/.done ## fetch ResNet50 weights and GloVe vectors; check Flickr30k in DATA or say how to get it
	$(RUN) data $(if $(ROOT),--data-root $(ROOT))

# A notebook runs to a temporary name and is moved when it succeeded. It depends on the modules that
# it imports, on its settings, and on the notebooks before it.
FORCE:
$(BUILD)/.settings.%: FORCE
	@mkdir -p $(@D)
	@$(PYTHON) scene_utils/study/settings.py $* $(PROFILE) '$(SET)' > $@.new
	@cmp -s $@.new $@ && rm $@.new || mv $@.new $@
$(BUILD)/%.ipynb: .venv/.done $(BUILD)/.settings.%
	@echo "== $* ($(PROFILE))"
	@$(RUN) notebook notebooks/$*.py $@ -p profile=$(PROFILE) $(if $(SET),-p 'changes=$(SET)')
$(foreach name,$(NAMES),$(eval $(BUILD)/$(name).ipynb: $(shell $(PYTHON) scene_utils/imports.py notebooks/$(name).py)))
$(BUILD)/%.html: $(BUILD)/%.ipynb
	@$(BIN)/jupyter nbconvert --to html --log-level ERROR --output-dir $(@D) --output .$(@F) $<
	@mv $(@D)/.$(@F) $@
.PRECIOUS: $(BUILD)/.settings.%

$(BUILD)/02_vocabulary.ipynb $(BUILD)/03_features.ipynb: $(BUILD)/01_explore.ipynb
$(BUILD)/04_train.ipynb: $(BUILD)/02_vocabulary.ipynb $(BUILD)/03_features.ipynb
$(BUILD)/04b_grid.ipynb: $(BUILD)/04_train.ipynb
$(BUILD)/05_iou_analysis.ipynb $(BUILD)/06_query_widget.ipynb: $(BUILD)/04b_grid.ipynb
$(patsubst %,$(BUILD)/%.ipynb,$(filter 05b% 05c% 05d%,$(NAMES))): $(BUILD)/05_iou_analysis.ipynb
$(BUILD)/04b_grid.ipynb $(BUILD)/06_query_widget.ipynb: $(wildcard data/pretrained/grid/*.[jht]* data/pretrained/grid/*/*.[jht]*)
$(BUILD)/06_query_widget.ipynb: $(wildcard scene_utils/widget/*.[cj]s* scene_utils/widget/template/*.j2)
# Where what a notebook makes is gone from the cache, it runs again.
gone = $(if $(wildcard $(2)),,$(eval $(BUILD)/$(1).ipynb: FORCE))
$(call gone,01_explore,$(CACHE)/phrases.parquet)
$(call gone,02_vocabulary,$(CACHE)/embeddings.npy)
$(call gone,03_features,$(CACHE)/features/chosen.txt)
$(call gone,04_train,$(CACHE)/models/source/settings.json)
$(call gone,05_iou_analysis,$(FIGS)/metrics.json)

reproduce: .venv/.done ## the whole study, two notebooks at a time: figures, metrics.json, result table
	@$(MAKE) --no-print-directory --jobs=2 html
	@$(BIN)/python -m tests.benchmarks.pages --show $(PROFILE)
	@printf '\n%s\n' 'notebooks and HTML: $(BUILD)/; figures and metrics: $(FIGS)/; models and predictions: $(CACHE)/'

features: $(BUILD)/03_features.ipynb ## features alone: SET="features.engine=openvino features.precision=bfloat16"
	@$(RUN) cache verify

smoke: ## the same on a tiny sample, in about three minutes
	@$(MAKE) --no-print-directory reproduce PROFILE=smoke

figures: .venv/.done ## figures and metrics.json of notebooks 05 to 05d again, from cached predictions alone
	@$(if $(wildcard $(CACHE)/predictions/*.parquet),,$(MAKE) --no-print-directory $(BUILD)/04b_grid.ipynb)
	@for name in $(filter 05%,$(NAMES)); do \
	  $(RUN) notebook notebooks/$$name.py $(BUILD)/$$name.ipynb -p profile=$(PROFILE) -p 'changes=renew=false $(SET)' || exit 1; done
	@ls $(FIGS)

# A peer of the benchmark, and what converts for it, lie beside the environment: no study needs them.
bench: .venv/.done build/bench/.done ## measure speed here, against other runtimes: figures/bench.json
	@$(BIN)/python -m tests.benchmarks --profile $(PROFILE) $(if $(ROOT),--data-root $(ROOT)) $(if $(ONLY),--only $(ONLY))
build/bench/.done: pyproject.toml
	@mkdir -p $(@D)
	$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["bench"])' \
	  | xargs $(BIN)/pip install --quiet --disable-pip-version-check --no-deps --upgrade --target $(@D) || \
	  echo 'some peers could not be installed; bench.json lists them as missing'
	@touch $@

ablation: $(BUILD)/02_vocabulary.ipynb $(BUILD)/03_features.ipynb ## train what figures/PROFILE/ablation.json lacks (hours): ROWS='a;b' SEEDS=0,1
	@$(BIN)/python -m tests.benchmarks.ablation --profile $(PROFILE) $(if $(ROWS),--rows '$(ROWS)') $(if $(SEEDS),--seeds $(SEEDS)) --changes '$(SET)'
readme: .venv/.done ## write the tables of README and pages from figures/*/metrics.json and bench.json
	@$(BIN)/python -m tests.benchmarks.pages
check-readme: .venv/.done ## fail where these tables differ from what they are made from
	@$(BIN)/python -m tests.benchmarks.pages --check
html: $(PAGES) ## executed notebooks as HTML pages
# Two workers, each of which holds a TensorFlow: more would need more memory than a laptop has.
TESTS := $(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder tests
test: .venv/.done ## fast tests
	$(TESTS)
test-slow: .venv/.done ## tests that train a network, run notebooks or score the whole real set
	$(TESTS) -m slow --durations=12
check-notebooks: reproduce ## run the executed notebooks again and compare what they state as facts
	$(BIN)/python -m pytest -q --nbval-lax --nbval-current-env $(BOOKS)
lint: .venv/.done ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
# Asked first for a version with known holes: only an index that tells them can clear the others.
audit: ## known vulnerabilities of what the lock installs (asks pypi.org)
	@$(PYTHON) -c 'import json, urllib.request as r; assert json.load(r.urlopen("https://pypi.org/pypi/pillow/9.0.0/json", timeout=10))["vulnerabilities"]' 2>/dev/null || \
	  { echo 'make audit: pypi.org, which knows the vulnerabilities, cannot be asked from here: nothing was checked'; exit 1; }
	@$(PYTHON) -m venv build/audit && build/audit/bin/pip install --quiet pip-audit==2.10.1
	@build/audit/bin/pip-audit --strict --progress-spinner off --require-hashes --disable-pip -r requirements.lock
lab: .venv/.done ## JupyterLab on the notebooks
	@JUPYTER_CONFIG_DIR=$(CURDIR)/.venv/etc/jupyter $(BIN)/jupytext-config set-default-viewer python
	JUPYTER_PREFER_ENV_PATH=1 $(BIN)/jupyter lab --notebook-dir notebooks
widget: .venv/.done ## the query widget as a page on this machine
	$(RUN) widget --profile $(PROFILE) --data '$(ROOT)' --changes '$(SET)'
screenshots: .venv/.done ## the README's pictures of the widget, from a headless browser
	@$(BIN)/python -m tests.browser.screenshots
clean: ## remove executed notebooks and the cache of PROFILE
	rm -rf $(BUILD) $(CACHE)
distclean: ## remove everything that is not committed: environment, builds, caches, downloads
	rm -rf .venv build data/cache data/raw data/pretrained/resnet50* figures/smoke *.egg-info .pytest_cache .ruff_cache .hypothesis
