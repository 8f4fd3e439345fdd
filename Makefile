# make demo     set up, train for real, adapt to tasks never seen, show what came out
# make test     the tests that CI runs
# make check    lint, types, docs
PYTHON ?= python3
BIN := .venv/bin
# Tests start many processes, which compile nothing anew if bytecode is written, whatever the environment says.
BYTECODE := PYTHONDONTWRITEBYTECODE=
PIP := $(BIN)/python -m pip --disable-pip-version-check install -q -c constraints.txt

.PHONY: demo test check lint types docs wheel try-wheel slow benchmark clean

# torch goes in first and by its pin: another version would bring gigabytes of CUDA packages.
.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) "$$(grep '^torch==' constraints.txt)"
	$(PIP) -e '.[dev]'
	touch $@

demo: .venv/ready
	@$(BIN)/python experiments/tools/demo.py

test: .venv/ready
	$(BYTECODE) $(BIN)/python -m pytest -n 2 --dist worksteal

slow: .venv/ready
	$(BYTECODE) $(BIN)/python -m pytest -m slow -n 2

check: lint types docs

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/ready
	$(BIN)/mypy -p metarl
	$(BIN)/mypy benchmarks

docs: .venv/ready
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict -q
	$(BYTECODE) $(BIN)/python -m pytest -m manual -n 2 tests/test_site.py tests/test_docs.py tests/experiments/manual tests/serving/test_manual.py

wheel: .venv/ready
	rm -rf build dist
	$(BIN)/python -m build --wheel -o dist >/dev/null
	rm -rf build
	$(MAKE) try-wheel

# The built wheel, in an environment of its own and outside the repository, must list, train and evaluate.
WHEEL := $(CURDIR)/.wheel-venv
try-wheel:
	rm -rf $(WHEEL)
	$(PYTHON) -m venv $(WHEEL)
	$(WHEEL)/bin/python -m pip --disable-pip-version-check install -q -c constraints.txt "$$(grep '^torch==' constraints.txt)"
	$(WHEEL)/bin/python -m pip --disable-pip-version-check install -q -c constraints.txt dist/*.whl
	cd $(WHEEL) && bin/metarl families && bin/metarl families show bandit
	cd $(WHEEL) && bin/metarl train maml-trpo bandit --iterations 2 --tasks-per-batch 4 --track disabled --out run
	cd $(WHEEL) && bin/metarl train --resume run --iterations 3 && bin/metarl evaluate run --tasks 4
	rm -rf $(WHEEL)

benchmark: .venv/ready
	$(BIN)/python benchmarks/maml_trpo_iteration.py

clean:
	rm -rf .venv .wheel-venv build dist site *.egg-info
