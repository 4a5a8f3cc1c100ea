# SPDX-License-Identifier: LGPL-2.1-or-later
# What there is to make; `make` alone lists it. Everything happens in .venv and build/.

PYTHON ?= python3
VENV   := .venv
RUN    := $(VENV)/bin/python
CORE   := setup.py $(wildcard src/*.pyx src/kdumpwire/*.* src/kdumpwire/*/*.* src/native/*.*)

# Whose headers are needed: those of .venv, once it is there.
HEADERS = $(firstword $(wildcard $(RUN)) $(PYTHON))
# What shellcheck reads: every file whose first line names sh or bash.
SCRIPTS      := .ci findings packaging src tests tools
SHELL_SCRIPT := FNR == 1 && /^\#!.*[\/ ](ba)?sh$$/ { print FILENAME } { nextfile }

# A core that does not compile is an error here; KDUMPFENCE_COMPILE=no does without one.
export KDUMPFENCE_COMPILE ?= require
# Nor does CI do without a library to sign with, which tools/prerequisites.sh installs.
export KDUMPFENCE_SIGNING ?= $(if $(filter true,$(CI)),require,auto)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

help:              ## this list
	@sed -n 's/^\([a-z]*\):.*## /make \1\t/p' $(MAKEFILE_LIST) | expand -t 20

demo: build        ## show the main job on loopback: a yes and a no, each with its time
	$(RUN) tools/demo.py

check: lint build $(VENV)/.test ## what is quick, two minutes: lint and tests; FOR=agent: those of that folder
	@$(RUN) tools/check.py $(FOR)

test: plan tools   ## everything (40 minutes): all tests, on every Python there is, and on Debian 12 and 13
	@failed= took= then=$$(date +%s); for phase in $(PHASES); do \
		$(MAKE) --no-print-directory $$phase || failed="$$failed $$phase"; \
		now=$$(date +%s) took="$$took $$phase $$((now - then)) s" then=$$now; \
	done; \
	echo "make test: took:$$took"; \
	test -z "$$failed" || { echo "make test: failed:$$failed" >&2; exit 1; }

# Of `make test`, in their order: none is left out because an earlier one failed.
PHASES := first beside alone

# What one core is enough for, two at a time.
first: build $(VENV)/.test $(VENV)/.lint
	$(MAKE) --no-print-directory -j 2 --keep-going --output-sync=target lint pythons

# Clusters mostly wait, so they are run beside the others.
together: build $(VENV)/.test $(VENV)/.fuzz
	@mkdir -p build; $(RUN) -m pytest --durations=10 --junitxml=build/cluster.xml -m cluster >build/cluster.log 2>&1 & \
	clusters=$$!; $(RUN) -m pytest -n 6 --dist loadfile --no-loadscope-reorder \
		--junitxml=build/together.xml -m 'not alone and not guest and not cluster'; others=$$?; \
	wait $$clusters; clusters=$$?; cat build/cluster.log; exit $$((others | clusters))

alone: build $(VENV)/.test
	$(RUN) -m pytest --durations=10 --junitxml=build/alone.xml -m alone

suites: build $(VENV)/.test
	$(RUN) -m tools.suite --others bookworm trixie

# Guests take a core for many minutes: they get what the others leave.
beside: build $(VENV)/.test
	@mkdir -p build; nice -n 3 $(RUN) -m pytest -m guest >build/guests.log 2>&1 & guests=$$!; \
	$(MAKE) --no-print-directory together; together=$$?; \
	$(MAKE) --no-print-directory suites; suites=$$?; \
	wait $$guests; guests=$$?; cat build/guests.log; exit $$((together | suites | guests))

plan:
	@echo 'make test takes 40 minutes on two cores: 4 for lint and other Pythons, 26 for the tests that run'
	@echo 'in parallel, here and on another Debian, 10 for those that want the machine for themselves.'
	@sh tools/prerequisites.sh --plan tests $(HEADERS)
	@echo 'to be installed from PyPI, where not yet there: 400 MB into .venv, and 100 MB a Python into build/pythons'

tools:
	@sh tools/prerequisites.sh tests $(HEADERS)

lint: $(VENV)/.lint ## style, types, spelling, shell scripts, the container's files, the CI's own workflow
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports --cache-dir build/imports
	$(VENV)/bin/cython-lint --no-pycodestyle src
	$(VENV)/bin/codespell
	find $(SCRIPTS) -type f -exec awk '$(SHELL_SCRIPT)' {} + | xargs $(VENV)/bin/shellcheck
	$(VENV)/bin/hadolint packaging/container/Containerfile
	$(VENV)/bin/kubernetes-validate --strict --quiet packaging/container/kubernetes.yaml
	$(VENV)/bin/zizmor --offline --no-progress --quiet --strict-collection .github

pythons: build     ## the unit tests on every other CPython from 3.9 up that this machine has
	$(RUN) -m tools.every_python --others

fuzz: build $(VENV)/.fuzz ## a short run of the fuzz targets; without atheris only CI insists
	$(RUN) fuzz/run.py --seconds 20 || { [ $$? = 2 ] && [ "$$CI" != true ]; }

bench: build $(VENV)/.test $(VENV)/.bench ## all figures, beside their peers (12 minutes), for docs/throughput.md
	$(RUN) -m bench.run --write

crashtable: build $(VENV)/.test native ## measure the senders in crash kernels (11 minutes), for docs/crash-kernel.md
	$(RUN) -m tools.crashtable

clustertable: build $(VENV)/.test ## crash both agents in real clusters (6 minutes), for docs/cluster-tests.md
	$(RUN) -m tools.clustertable

doctortable: build $(VENV)/.test ## plant the doctor's faults in a real cluster (15 minutes), for docs/doctor.md
	$(RUN) -m tools.doctortable

scale: build $(VENV)/.test  ## a hundred thousand nodes, a flood, a day, a hundred kills, three listeners (14 minutes), for docs/scale.md
	$(RUN) -m tools.scale

statuspage: build $(VENV)/.test ## take the pictures of kdumpfenced's status page for docs (3 seconds)
	$(RUN) -m tools.statuspage

forged: build $(VENV)/.test ## three million forged and mutated packets, none of which may be believed (5 minutes)
	$(RUN) -m tools.forged

suite: build       ## the tests in a root of another Debian: SUITE=trixie, bookworm, testing or unstable
	$(RUN) -m tools.suite $(SUITE)

newest: build      ## the same on testing and unstable as they are today, for docs/systems.md
	rm -rf build/suites/testing build/suites/unstable
	$(RUN) -m tools.suite --write testing unstable

native:            ## the native sender alone, in build/native; needs Cython and a C compiler
	@if $(PYTHON) -c 'import Cython; exit(Cython.__version__ < "3")' 2>/dev/null; \
	then $(PYTHON) src/native/build_sender.py build/native; \
	else $(MAKE) --no-print-directory venv && $(RUN) src/native/build_sender.py build/native; fi

wheel: venv        ## an sdist and a wheel for this Python, in dist/
	$(RUN) -m build -o dist

deb: venv          ## Debian packages of programs and library for this distribution, in dist/
	sh tools/prerequisites.sh packages $(RUN)
	sh packaging/deb.sh $(RUN) dist

venv: $(VENV)/.made   ## .venv with what builds the core, and the programs in .venv/bin
build: $(VENV)/.built ## the same with the compiled core, built anew if it changed

$(VENV)/.made: pyproject.toml tools/prerequisites.sh
	@echo 'making $(VENV): Cython and what else builds the core, 50 MB from PyPI, a minute'
	@sh tools/prerequisites.sh build $(HEADERS)
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	KDUMPFENCE_COMPILE=no $(RUN) -m pip install -q -e '.[build]'
	touch $@

# The extras of pyproject.toml, each when a target first needs it.
$(VENV)/.test $(VENV)/.lint $(VENV)/.fuzz $(VENV)/.bench: $(VENV)/.%: $(VENV)/.made
	@echo 'adding to $(VENV), from PyPI: the extra "$*" of pyproject.toml'
	KDUMPFENCE_COMPILE=no $(RUN) -m pip install -q --no-build-isolation -e '.[$*]'
	touch $@

# mypy reads the tests, and what they import.
$(VENV)/.lint: $(VENV)/.test

$(VENV)/.built: $(VENV)/.made $(VENV)/.compilers $(CORE)
	$(RUN) setup.py -q build_ext --inplace $(if $(filter %.compilers,$?),--force)
	touch $@

# What there is beside the sources: without musl's compiler the static sender is another, without
# BearSSL nothing signs, and both may come later.
$(VENV)/.compilers: $(VENV)/.made FORCE
	@{ command -v "$${CC:-cc}"; command -v "$${MUSL_CC:-musl-gcc}"; \
	   "$${CC:-cc}" -print-file-name=libbearssl.a; echo "$$KDUMPFENCE_BEARSSL"; \
	} > $@.now || true
	@if cmp -s $@.now $@; then rm $@.now; else mv $@.now $@; fi

FORCE:

clean:             ## remove all that was made
	rm -rf $(VENV) build dist src/*.egg-info src/kdumpfence/*.so src/kdumpfence/_native .*_cache .benchmarks .hypothesis
	find . -name __pycache__ -prune -exec rm -r {} +

.PHONY: help demo check test first beside together suites alone plan tools lint fuzz pythons bench crashtable clustertable doctortable scale statuspage forged native wheel deb venv build clean FORCE
.DELETE_ON_ERROR:
