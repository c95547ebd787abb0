# make report [PROFILE=sample] [DATA=FOLDER] [JOBS=all] [SHOW_FACES=true] [EXTRAS=cuda|jax|jax-cuda] [PYTHON=PATH]
#             [EXTRAS=slurm CLUSTER=slurm] sends each notebook to a cluster, see book/rerun.md
# make hand-in NAME="Ada Lovelace" ID=12345 COURSE="ML 101" [PDF=true] and what make report takes
# Works with GNU make 3.81 and any POSIX shell. On Windows use environment.yml.

PROFILE    ?= sample
DATA       ?=
JOBS       ?= all
SHOW_FACES ?= true
EXTRAS     ?=
CLUSTER    ?=
PYTHON     ?=
TESTS      ?=
PDF        ?= true
UV         := 0.13.9

# Caches and settings of this folder's own, none of the user's: a run depends on nothing outside.
LOCAL := $(CURDIR)/.cache
export XDG_CACHE_HOME         := $(LOCAL)
export IPYTHONDIR             := $(LOCAL)/ipython
export JUPYTER_CONFIG_DIR     := $(LOCAL)/jupyter/config
export JUPYTER_DATA_DIR       := $(LOCAL)/jupyter/data
export JUPYTER_RUNTIME_DIR    := $(LOCAL)/jupyter/runtime
export JUPYTER_PREFER_ENV_PATH := 1
export MPLCONFIGDIR           := $(LOCAL)/matplotlib
export KERAS_HOME             ?= $(LOCAL)/keras
export KAGGLEHUB_CACHE        ?= $(LOCAL)/kagglehub
export PYTHONNOUSERSITE       := 1
export TF_CPP_MIN_LOG_LEVEL   ?= 3
unexport PYTHONPATH PYTHONHOME
unexport PYTHONDONTWRITEBYTECODE  # many containers set it, and each start of TensorFlow takes three times as long

BIN   := .venv/bin
READY := .venv/ready-$(if $(EXTRAS),$(EXTRAS),plain)

.PHONY: help report reference hand-in test lab clean

help:
	@echo "make report   set up, run the notebooks of PROFILE ($(PROFILE)) and build the book"
	@echo "make reference DATA=FOLDER   make the runs on UTKFace anew that the book shows"
	@echo "make hand-in NAME=... ID=... COURSE=...   the report, then one zip of it to hand in (PDF=false: without PDF)"
	@echo "make test     set up and run the tests (TESTS=tests/test_x.py for some of them)"
	@echo "make lab      set up and open JupyterLab"
	@echo "make clean    remove runs and pages (not .venv, not .cache)"
	@echo "Knobs of make report: PROFILE DATA JOBS SHOW_FACES EXTRAS CLUSTER PYTHON"

# How much at a time: of this machine's cores, or of a cluster's jobs by a profile for Snakemake (ours, or a path).
AT_A_TIME = $(if $(CLUSTER),--profile "$(or $(wildcard notebooks/profiles/$(CLUSTER)),$(CLUSTER))" \
    $(if $(filter-out all,$(JOBS)),--jobs "$(JOBS)"),--cores "$(JOBS)")

# A lock left by a kill -9 means nothing here (--nolock): the Snakefile holds one that the system lets go.
report: $(READY)
	@$(BIN)/python -m snakemake $(AT_A_TIME) --nolock --rerun-incomplete --keep-going \
	    --quiet host reason $(if $(CLUSTER),,rules) --config "profile=$(PROFILE)" "show_faces=$(SHOW_FACES)" \
	    $(if $(DATA),"data=$(DATA)")
	@cat "_build/$(notdir $(basename $(PROFILE)))/times.txt"

# The runs on UTKFace that the book shows: made, and stored without pictures and weights in book/reference.
reference: $(READY)
	@test -n "$(DATA)" || { echo "make reference DATA=FOLDER: the folder of UTKFace, see README.md" >&2; exit 1; }
	@$(MAKE) --no-print-directory report PROFILE=reference; status=$$?; \
	    $(BIN)/python -m agegender reference || status=$$?; exit $$status

# What a course wants. NAME is only taken from the command line: some shells have one that is the machine's.
typed = $(if $(filter command,$(origin $(1))),$(value $(1)))
hand-in: export HAND_IN_NAME = $(call typed,NAME)
hand-in: export HAND_IN_ID = $(call typed,ID)
hand-in: export HAND_IN_COURSE = $(call typed,COURSE)
HANDED = --name="$$HAND_IN_NAME" --id="$$HAND_IN_ID" --course="$$HAND_IN_COURSE" --profile="$(PROFILE)" \
    --data="$(DATA)" --show-faces="$(SHOW_FACES)" --pdf="$(PDF)"
hand-in: $(READY)
	@$(BIN)/python -m agegender.handin --check $(HANDED)
	@$(MAKE) --no-print-directory report
	@$(BIN)/python -m agegender.handin $(HANDED)

test: $(READY)
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder $(TESTS)

lab: $(READY)
	$(BIN)/python -m jupyter lab notebooks

clean:
	rm -rf runs _build

# The stamp comes last: an environment that was broken off is made anew. uv's cache makes that quick.
$(READY): requirements.lock pyproject.toml
	@set -eu; began=$$(date +%s); \
	python=; seen=; \
	for name in $(if $(PYTHON),"$(PYTHON)",python3.13 python3.12 python3.11 python3 python); do \
	    version=$$("$$name" -c 'import sys, venv, ensurepip; print("%d.%d" % sys.version_info[:2])' \
	        2>/dev/null) || continue; \
	    seen="$$seen $$name is $$version;"; \
	    case $$version in 3.11|3.12|3.13) python=$$name; break;; esac; \
	done; \
	if [ -z "$$python" ]; then \
	    echo "This needs Python 3.11, 3.12 or 3.13 with venv. Found:$${seen:- none that runs.}" >&2; \
	    echo "Install one and name it: make report PYTHON=/path/to/python3.12" >&2; exit 1; \
	fi; \
	echo "Setting up .venv with $$python ($$version); once, a few minutes"; \
	rm -rf .venv; \
	"$$python" -m venv .venv; \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV); \
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock; \
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .; \
	$(if $(EXTRAS),$(BIN)/uv pip install --quiet --python $(BIN)/python --no-build-isolation \
	    -c requirements.lock -e ".[$(EXTRAS)]";) \
	echo $$(( $$(date +%s) - began )) > .venv/setup-seconds; \
	touch .venv/ready-plain $@
