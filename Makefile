# SPDX-License-Identifier: GPL-2.0-or-later
# What there is to make; `make` alone lists it. Everything happens in .venv and build/.

PYTHON ?= python3
VENV   := .venv
RUN    := $(VENV)/bin/python
CORE   := setup.py $(wildcard src/*.pyx src/kdumpwire/*.* src/kdumpwire/*/*.* src/native/*.*)

# A core that does not compile is an error here; KDUMPFENCE_COMPILE=no does without one.
export KDUMPFENCE_COMPILE ?= require
export PIP_DISABLE_PIP_VERSION_CHECK := 1

help:              ## this list
	@sed -n 's/^\([a-z]*\):.*## /make \1\t/p' $(MAKEFILE_LIST) | expand -t 20

demo: build        ## show the main job on loopback: a yes and a no, each with its time
	$(RUN) tools/demo.py

test: tools lint fuzz pythons ## everything, the unit tests on every Python there is
	$(RUN) -m pytest -n 4 --dist loadfile -m 'not alone'
	$(RUN) -m pytest --durations=10 -m alone

check: lint build  ## what is quick: lint and unit tests, on one Python
	$(RUN) -m pytest -q -m 'not slow' tests/core tests/shared tests/agent tests/storm tests/building

tools: venv
	sh tools/prerequisites.sh tests $(RUN)

lint: venv         ## ruff and mypy
	$(VENV)/bin/ruff check
	$(VENV)/bin/mypy

pythons: build     ## the unit tests on every CPython from 3.9 up that this machine has
	$(RUN) -m tools.every_python

fuzz: build        ## a short run of the fuzz targets; without atheris only CI insists
	$(RUN) fuzz/run.py --seconds 20 || { [ $$? = 2 ] && [ "$$CI" != true ]; }

bench: $(VENV)/.bench build ## all figures, beside their peers (10 minutes), for docs/throughput.md
	$(RUN) -m bench.run --write

crashtable: build native ## measure the senders in crash kernels (11 minutes), for docs/crash-kernel.md
	$(RUN) -m tools.crashtable

clustertable: build ## crash both agents in real clusters (6 minutes), for docs/cluster-tests.md
	$(RUN) -m tools.clustertable

scale: build       ## a hundred thousand nodes, a flood, a day, a hundred kills (8 minutes), for docs/scale.md
	$(RUN) -m tools.scale

native:            ## the native sender alone, in build/native; needs Cython and a C compiler
	@if $(PYTHON) -c 'import Cython; exit(Cython.__version__ < "3")' 2>/dev/null; \
	then $(PYTHON) src/native/build_sender.py build/native; \
	else $(MAKE) --no-print-directory venv && $(RUN) src/native/build_sender.py build/native; fi

wheel: venv        ## an sdist and a wheel for this Python, in dist/
	$(RUN) -m build -o dist

deb: venv          ## a Debian package for this distribution, in dist/
	sh tools/prerequisites.sh packages $(RUN)
	sh packaging/deb.sh $(RUN) dist

venv: $(VENV)/.made   ## .venv with all that is needed, and the programs in .venv/bin
build: $(VENV)/.built ## the same with the compiled core, built anew if it changed

$(VENV)/.made: pyproject.toml tools/prerequisites.sh
	sh tools/prerequisites.sh build $(PYTHON)
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	KDUMPFENCE_COMPILE=no $(RUN) -m pip install -q -e '.[test,lint,build,fuzz]'
	touch $@

$(VENV)/.bench: $(VENV)/.made
	KDUMPFENCE_COMPILE=no $(RUN) -m pip install -q -e '.[bench]'
	touch $@

$(VENV)/.built: $(VENV)/.made $(CORE)
	$(RUN) setup.py -q build_ext --inplace
	touch $@

clean:             ## remove all that was made
	rm -rf $(VENV) build dist src/*.egg-info src/kdumpfence/*.so src/kdumpfence/_native .*_cache .benchmarks .hypothesis
	find . -name __pycache__ -prune -exec rm -r {} +

.PHONY: help demo test check tools lint fuzz pythons bench crashtable clustertable scale native wheel deb venv build clean
.DELETE_ON_ERROR:
