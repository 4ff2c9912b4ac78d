# Every target does its own set-up; `make help` lists them.

PYTHON ?= $(or $(shell command -v python3.11),python3)
ARGS ?=
NODE_PACKAGE := tests/aws/node
export PYTHON NODE_PACKAGE
.DEFAULT_GOAL := help

# An environment is good while it holds the stamp named by the hash of what went into it.
# Of pyproject.toml that is the part before [tool.*]: a linter's setting rebuilds nothing.
python_version := $(shell $(PYTHON) -V 2>&1)
stamp = .venv$1/.stamp-$(firstword $(shell { echo '$(python_version)'; cat $2; $3; } | \
	{ sha256sum 2>/dev/null || shasum -a 256; }))
packaging := sed '/^\[tool\./,$$d' pyproject.toml
node_package := $(wildcard $(NODE_PACKAGE)/package.json $(NODE_PACKAGE)/package-lock.json)
dev_stamp := $(call stamp,,requirements/dev.txt,$(packaging))
emulator_stamp := $(call stamp,-emulator,requirements/emulator.txt,:)
node_stamp := $(call stamp,-node,requirements/node.txt $(node_package),:)
lock_stamp := $(call stamp,-lock,requirements/lock.txt,:)

pytest := .venv/bin/python -m pytest
compile = .venv-lock/bin/uv pip compile --quiet --no-config --universal --python-version 3.11 \
	--generate-hashes --custom-compile-command 'make lock' $(ARGS)

.PHONY: demo test lint format lock image clean help .venv .venv-emulator .venv-node .venv-lock

demo: $(dev_stamp) $(emulator_stamp)  ## The whole service on this machine, with traffic (ARGS="--output json")
	@.venv/bin/processor demo $(ARGS)

test: $(dev_stamp) $(emulator_stamp) $(node_stamp)  ## All tests (ARGS="tests/test_project.py -x")
	@$(pytest) $(ARGS)

lint: $(dev_stamp)  ## The tests that are lints: ruff, mypy, hadolint, what may be committed
	@$(pytest) tests/test_project.py $(ARGS)

format: $(dev_stamp)  ## Rewrite the sources as ruff wants them
	@.venv/bin/ruff check --fix-only .
	@.venv/bin/ruff format .

lock: $(lock_stamp)  ## Write requirements/*.txt anew (ARGS=--upgrade moves to the latest versions)
	@$(compile) requirements/build.in --output-file requirements/build.txt
	@$(compile) pyproject.toml --output-file requirements/runtime.txt
	@$(compile) pyproject.toml --extra dev --extra demo requirements/build.in \
		--constraint requirements/runtime.txt --output-file requirements/dev.txt
	@for name in emulator node lock; do \
		$(compile) requirements/$$name.in --output-file requirements/$$name.txt; done

image:  ## The container image processor:latest (wants a Docker engine)
	@docker build --tag processor:latest $(ARGS) .

clean:  ## Remove all that make made, environments included
	rm -rf .venv .venv-emulator .venv-node .venv-lock build *.egg-info
	rm -rf .hypothesis .mypy_cache .pytest_cache .ruff_cache .run

help:
	@echo "make demo | test | lint | format | lock | image | clean   (PYTHON=… names the interpreter)"; echo
	@sed -n 's/^\([a-z]*\):.*  ## /  \1\t/p' $(MAKEFILE_LIST)

.venv: $(dev_stamp); @:
.venv-emulator: $(emulator_stamp); @:
.venv-node: $(node_stamp); @:
.venv-lock: $(lock_stamp); @:
$(dev_stamp):
	@requirements/environment.sh $@ requirements/dev.txt
$(emulator_stamp):
	@requirements/environment.sh $@ requirements/emulator.txt
$(node_stamp):
	@requirements/environment.sh $@ requirements/node.txt
$(lock_stamp):
	@requirements/environment.sh $@ requirements/lock.txt
