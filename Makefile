# make notebooks   the course: every notebook in order at quick scale; executed copies in build/notebooks
# make site        the course's pages, from the notebooks as committed: build/html/index.html
# make test        every check: style, unit tests, every notebook
# make lab         JupyterLab in work/, your own copies of the lessons
# make save        as make notebooks, and stores the outputs in notebooks/ (before you commit one)
# Each makes the environment first if it is not there: .venv here, or the conda/uv/venv environment that is active.

ifdef VIRTUAL_ENV
ENV := $(VIRTUAL_ENV)
else ifneq ($(filter-out base,$(CONDA_DEFAULT_ENV)),)
ENV := $(CONDA_PREFIX)
else
ENV := $(CURDIR)/.venv
endif
PY := "$(ENV)/bin/python"
export PYTHONPATH := $(CURDIR)$(if $(PYTHONPATH),:$(PYTHONPATH))

# uv environments come without pip, so uv installs there.
install = if $(PY) -m pip --version >/dev/null 2>&1; then $(PY) -m pip install -q -e '.[$(1)]'; \
	else uv pip install -q --python $(PY) -e '.[$(1)]'; fi
COURSE := jupyter,test
HAS_SPHINX := import importlib.util as i, mixlab.course.site as s; exit(not all(map(i.find_spec, s.NEEDED)))

# Threads that wait for each other in a busy loop are slow when something else runs: the sweep of two networks took 29 s
# beside one busy process on two cores, and 1.8 s with this.
export GOMP_SPINCOUNT ?= 1000

# Checks side by side, of one thread each: on two cores they take two thirds of the time. More with make test JOBS=8.
JOBS ?= 2
unit course: export OMP_NUM_THREADS = 1

# Without a GPU, PyTorch's build for the CPU leaves out the GPU libraries, most of the download.
CPU_WHEELS ?= https://download.pytorch.org/whl/cpu

default: help
.PHONY: default notebooks site test lab save style unit course help environment
help:
	@sed -n '1,6s/^# //p' Makefile

notebooks: environment
	$(PY) -m mixlab notebooks

save: environment
	$(PY) -m mixlab notebooks --save

site: environment
	@$(PY) -c "$(HAS_SPHINX)" || $(call install,site)
	$(PY) -m mixlab site

lab: environment
	@$(PY) -c "from mixlab.course import work; work.copy('work')"
	cd work && $(PY) -m jupyterlab 00_start_here.ipynb

test: environment
	@start=$$(date +%s); $(MAKE) --no-print-directory style || exit 1; styled=$$(date +%s); \
	$(MAKE) --no-print-directory unit || exit 1; united=$$(date +%s); \
	$(MAKE) --no-print-directory course || exit 1; ended=$$(date +%s); \
	echo "where the time went: style $$((styled - start)) s, unit tests $$((united - styled)) s, notebooks $$((ended - united)) s"

style: environment
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

# All of them; while you work, `python -m pytest -m "not slow"` leaves the slow ones out.
unit: environment
	$(PY) -m pytest tests -n $(JOBS) --durations=10 -q

course: environment
	$(PY) -m pytest --nbmake --nbmake-timeout=600 -W default notebooks -n $(JOBS) --durations=0 -q

# Installs once, and again only when pyproject.toml or the environment changes; build/environment notes which it was.
environment:
	@if [ -x $(PY) ] && [ "$$(cat build/environment 2>/dev/null)" = "$(ENV)" ] && [ ! pyproject.toml -nt build/environment ]; \
	then exit 0; fi; \
	if [ "$(ENV)" = "$(CURDIR)/.venv" ] && [ ! -x $(PY) ]; then \
	  for python in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11; do \
	    if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then found=$$python; break; fi; done; \
	  [ -n "$$found" ] || { echo "mixlab needs Python 3.11 or newer: none found. Say which with make PYTHON=/path/to/python3.12"; exit 1; }; \
	  $$found -m venv .venv; fi; \
	if ! $(PY) -c 'import torch' 2>/dev/null && [ "$$(uname)" = Linux ] && ! command -v nvidia-smi >/dev/null; then \
	  if $(PY) -c "import urllib.request as u; u.urlopen('$(CPU_WHEELS)/torch/', timeout=5)" 2>/dev/null && \
	  $(PY) -m pip install -q torch torchvision --index-url $(CPU_WHEELS); then echo "PyTorch for the CPU: no GPU here"; \
	  else echo "PyTorch's build for the CPU is not to be had here: installing the usual one, about 5 GB with its GPU libraries"; fi; fi; \
	$(call install,$(COURSE)) && mkdir -p build && echo "$(ENV)" > build/environment
