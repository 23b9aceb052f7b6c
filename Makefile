# A bare `make` lists the targets. Variables: PROFILE, DATA, BACKBONE, WEIGHTS, UNTRAINED, VECTORS,
# SEED, EPOCHS, PICTURES, GRID, GRID_BACKBONE, GRID_EPOCHS, GRID_SIZE, GRID_PROGRESSIVE,
# GRID_PICTURES, GRID_BLOCKS, GRID_ANCHORED, GRID_MEMBERS, ENGINE, PRECISION, ONLY, ROWS, SEEDS.
PROFILE   ?= sample
DATA      ?=
BACKBONE  ?= efficientnet_lite0
WEIGHTS   ?=
UNTRAINED ?= false
ENGINE    ?= keras
PRECISION ?= float32
VECTORS   ?= glove50
SEED      ?= 0
EPOCHS    ?= 20
GRID      ?= $(if $(DATA),shipped,train)
PICTURES  ?= 1600
PYTHON    ?= $(firstword $(foreach v,3.11 3.12 3.13,$(shell python$(v) -c 'print("python$(v)")' 2>/dev/null)) python3)

BIN    := .venv/bin
RUN    := $(BIN)/python -m scene_utils
BUILD  := build/$(PROFILE)
CACHE  := data/cache/$(PROFILE)
FIGS   := figures/$(PROFILE)
ROOT   := $(if $(DATA),$(abspath $(DATA)))
NAMES  := 01_explore 02_vocabulary 03_features 04_train 05_iou_analysis 06_query_widget
BOOKS  := $(NAMES:%=$(BUILD)/%.ipynb)
PAGES  := $(NAMES:%=$(BUILD)/%.html)

ifneq ($(filter flickr30k,$(PROFILE)),)
ifeq ($(DATA),)
$(if $(filter reproduce html figures features ablation widget,$(MAKECMDGOALS)),$(error PROFILE=flickr30k needs DATA=<folder of Flickr30k Entities>; `make data` says how to obtain it))
endif
endif

.PHONY: help
help: ## this list
	@echo 'make TARGET [PROFILE=sample|smoke|flickr30k] [DATA=<folder>] ...'
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 18

.PHONY: env
env: .venv/.done ## create .venv from requirements.lock
.venv/.done: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; \
	  sys.exit(None if (3, 11) <= v <= (3, 13) else "expected Python 3.11 to 3.13, got %d.%d: set PYTHON=python3.12" % v)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

.PHONY: lock
lock: ## resolve pyproject.toml into requirements.lock, with hashes, for all platforms
	$(PYTHON) -m venv build/lock && build/lock/bin/pip install --quiet uv==0.13.9
	build/lock/bin/uv pip compile --universal --python-version 3.11 --generate-hashes \
	  --extra study --extra widget --extra browser --extra test \
	  --no-header --quiet -o requirements.lock pyproject.toml

.PHONY: data
data: .venv/.done ## fetch ResNet50 and GloVe weights; check Flickr30k in DATA or say how to get it
	$(RUN) data $(if $(ROOT),--data-root $(ROOT))

# Each notebook is a script; it runs to a temporary name and is moved when it succeeded. It depends
# on the modules it imports, on the notebook before it, and on its parameters. Where its artefact is
# gone from the cache it runs again.
NEEDS = $(shell $(PYTHON) scene_utils/imports.py notebooks/$(1).py)
SHIPPED := $(wildcard $(addprefix data/pretrained/grid/,*.h5 *.json member*/*.h5 member*/*.json))
# The sample's objects are large and few: a smaller input, one block and 2,400 steps are enough,
# where real data get 4,920. Its colours and patterns are fine: what is seen smaller at first costs
# more than it saves. Its pictures are few: half as many a step make twice the steps. `anchored` does
# not pay on real data.
GRID_EPOCHS ?= 12
GRID_SIZE   ?= $(if $(DATA),320,224)
GRID_PROGRESSIVE ?= $(if $(DATA),true,false)
GRID_PICTURES ?= $(if $(DATA),16,8)
GRID_BLOCKS ?= $(if $(DATA),3,1)
GRID_ANCHORED ?= $(if $(DATA),false,true)
GRID_MEMBERS ?= $(if $(DATA),2,1)
GRID_BACKBONE ?= $(if $(filter resnet50,$(BACKBONE)),resnet50,$(if $(DATA),efficientnet_lite2,$(BACKBONE)))

GIVES_01 := $(CACHE)/phrases.parquet
GIVES_02 := $(CACHE)/embeddings.npy
GIVES_03 := $(CACHE)/features/chosen.txt
GIVES_04 := $(CACHE)/models/seed/settings.json
GIVES_05 := $(FIGS)/metrics.json
GIVES_06 := $(FIGS)/query.png

ASK_01 = data=$(ROOT) pictures=$(PICTURES)
ASK_02 = vectors=$(VECTORS)
ASK_03 = data=$(ROOT) backbone=$(BACKBONE) weights=$(WEIGHTS) untrained=$(UNTRAINED) \
  engine=$(ENGINE) precision=$(PRECISION)
ASK_04 = data=$(ROOT) weights=$(WEIGHTS) seed=$(SEED) epochs=$(EPOCHS) \
  grid=$(GRID) grid_backbone=$(GRID_BACKBONE) grid_epochs=$(GRID_EPOCHS) grid_size=$(GRID_SIZE) \
  grid_progressive=$(GRID_PROGRESSIVE) grid_pictures=$(GRID_PICTURES) \
  grid_blocks=$(GRID_BLOCKS) grid_anchored=$(GRID_ANCHORED) grid_members=$(GRID_MEMBERS)
ASK_05 = data=$(ROOT) weights=$(WEIGHTS) seed=$(SEED)
ASK_06 = data=$(ROOT) weights=$(WEIGHTS)

.PHONY: FORCE
FORCE:

define rule
$(BUILD)/$(1).ipynb: .venv/.done $(call NEEDS,$(1)) \
  $(BUILD)/.parameters.$(2) $$(if $$(wildcard $$(GIVES_$(2))),,FORCE)
	@echo "== $(1) ($(PROFILE))"
	@$(RUN) notebook notebooks/$(1).py $$@ -p profile=$(PROFILE) $$(foreach pair,$$(ASK_$(2)),-p '$$(pair)')
$(BUILD)/.parameters.$(2): FORCE
	@mkdir -p $$(@D)
	@echo '$$(ASK_$(2))' | cmp -s - $$@ || echo '$$(ASK_$(2))' > $$@
endef
$(foreach name,$(NAMES),$(eval $(call rule,$(name),$(firstword $(subst _, ,$(name))))))

$(BUILD)/02_vocabulary.ipynb: $(BUILD)/01_explore.ipynb
$(BUILD)/03_features.ipynb: $(BUILD)/01_explore.ipynb
$(BUILD)/04_train.ipynb: $(BUILD)/02_vocabulary.ipynb $(BUILD)/03_features.ipynb
$(BUILD)/04_train.ipynb: $(if $(filter shipped,$(GRID)),$(SHIPPED))
$(BUILD)/05_iou_analysis.ipynb: $(BUILD)/04_train.ipynb
$(BUILD)/06_query_widget.ipynb: $(BUILD)/04_train.ipynb $(SHIPPED) \
  $(wildcard scene_utils/widget/*.[cj]s*)

$(BUILD)/%.html: $(BUILD)/%.ipynb
	@$(BIN)/jupyter nbconvert --to html --log-level ERROR --output-dir $(@D) --output .$(@F) $<
	@mv $(@D)/.$(@F) $@

.PHONY: reproduce
reproduce: $(BOOKS) $(PAGES) ## the whole study: notebooks, figures, metrics.json, result table
	@echo
	@$(RUN) table --profile $(PROFILE)
	@echo
	@echo 'notebooks and HTML  $(BUILD)/'
	@echo 'figures, metrics    $(FIGS)/'
	@echo 'models, predictions $(CACHE)/models/, $(CACHE)/predictions/'

.PHONY: features
features: $(BUILD)/03_features.ipynb ## features alone: ENGINE=keras|openvino|ray PRECISION=float32|bfloat16
	@$(RUN) cache verify

.PHONY: smoke
smoke: ## the same on a tiny sample, in about a minute
	@$(MAKE) --no-print-directory reproduce PROFILE=smoke PICTURES=64 EPOCHS=2 \
	  GRID_EPOCHS=1 GRID_SIZE=96

.PHONY: figures
figures: .venv/.done ## notebook 05's figures and metrics.json again, from cached predictions alone
ifeq ($(wildcard $(CACHE)/predictions/*.parquet),)
	@$(MAKE) --no-print-directory $(BUILD)/05_iou_analysis.ipynb
else
	@$(RUN) notebook notebooks/05_iou_analysis.py $(BUILD)/05_iou_analysis.ipynb \
	  -p profile=$(PROFILE) $(foreach pair,$(ASK_05),-p '$(pair)') -p renew=false
endif
	@ls $(FIGS)

# Peers of the benchmark live in an environment of their own: none of the study needs them.
# On Linux pip takes PyTorch with CUDA unless PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
.PHONY: bench
bench: .venv/.done build/bench/.done ## measure speed here, against other runtimes: figures/bench.json
	@$(RUN) bench --profile $(PROFILE) $(if $(ROOT),--data-root $(ROOT)) $(if $(ONLY),--only $(ONLY))
build/bench/.done: pyproject.toml
	$(PYTHON) -m venv build/bench
	$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["bench"], sep="\n")' \
	  | build/bench/bin/pip install --quiet --disable-pip-version-check -r /dev/stdin || \
	  echo 'some peers could not be installed; bench.json lists them as missing'
	@touch $@

ROWS  ?=
SEEDS ?= 0
.PHONY: ablation
ablation: $(BUILD)/02_vocabulary.ipynb $(BUILD)/03_features.ipynb ## train what figures/PROFILE/ablation.json lacks (hours); ROWS='a;b' SEEDS=0,1
	@$(RUN) ablation --profile $(PROFILE) --data-root '$(ROOT)' --rows '$(ROWS)' --seeds $(SEEDS) \
	  --pictures-per-step $(GRID_PICTURES) --progressive $(GRID_PROGRESSIVE)

.PHONY: readme
readme: .venv/.done ## write the README's tables from figures/*/metrics.json
	@$(RUN) readme

.PHONY: check-readme
check-readme: .venv/.done ## fail where the README's tables differ from figures/*/metrics.json
	@$(RUN) readme --check

.PHONY: html
html: $(PAGES) ## executed notebooks as HTML pages

# Two workers, each of which holds a TensorFlow: more would need more memory than a laptop has.
.PHONY: test
test: .venv/.done ## fast tests
	$(BIN)/python -m pytest -q -n 2 --dist loadfile tests

.PHONY: test-slow
test-slow: .venv/.done ## tests that train a network, run notebooks or score the whole real set
	$(BIN)/python -m pytest -q -m slow -n 2 --dist loadfile tests

.PHONY: check-notebooks
check-notebooks: $(BOOKS) ## run the executed notebooks again and compare what they state as facts
	$(BIN)/python -m pytest -q --nbval-lax --nbval-current-env $(BOOKS)

.PHONY: lint
lint: .venv/.done ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Asked first for a version with known holes: only an index that tells them can clear the others.
.PHONY: audit
audit: ## known vulnerabilities of what the lock installs (asks pypi.org)
	@$(PYTHON) -c 'import json, urllib.request as r; \
	  assert json.load(r.urlopen("https://pypi.org/pypi/pillow/9.0.0/json", timeout=10))["vulnerabilities"]' 2>/dev/null || \
	  { echo 'make audit: pypi.org, which knows the vulnerabilities, cannot be asked from here: nothing was checked'; exit 1; }
	@$(PYTHON) -m venv build/audit && build/audit/bin/pip install --quiet pip-audit==2.10.1
	@build/audit/bin/pip-audit --strict --progress-spinner off --require-hashes --disable-pip -r requirements.lock

.PHONY: lab
lab: .venv/.done ## JupyterLab on the notebooks
	@JUPYTER_CONFIG_DIR=$(CURDIR)/.venv/etc/jupyter $(BIN)/jupytext-config set-default-viewer python
	JUPYTER_PREFER_ENV_PATH=1 $(BIN)/jupyter lab --notebook-dir notebooks

.PHONY: widget
widget: .venv/.done ## the query widget as a page on this machine
	$(BIN)/python -m scene_utils.widget.page --profile $(PROFILE) --data '$(ROOT)' --weights '$(WEIGHTS)'

.PHONY: screenshots
screenshots: .venv/.done ## the README's pictures of the widget, from a headless browser
	@$(BIN)/python -m tests.browser.screenshots

.PHONY: clean
clean: ## remove executed notebooks and the cache of PROFILE
	rm -rf $(BUILD) $(CACHE)

.PHONY: distclean
distclean: ## remove everything that is not committed: environment, builds, caches, downloads
	rm -rf .venv build data/cache data/raw data/pretrained/resnet50* figures/smoke figures/ci \
	  *.egg-info .pytest_cache .ruff_cache .hypothesis
