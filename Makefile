# make demo     set up, train for real, adapt to tasks never seen, show what came out
# make test     the tests that CI runs
# make check    lint, types, docs
PYTHON ?= python3
BIN := .venv/bin
# Tests start many processes, which compile nothing anew if bytecode is written, whatever the environment says.
BYTECODE := PYTHONDONTWRITEBYTECODE=
PIP := $(BIN)/python -m pip --disable-pip-version-check install -q -c constraints.txt

.PHONY: demo test check lint types docs wheel slow benchmark clean

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

# The built wheel, in an environment of its own, must run the command.
wheel: .venv/ready
	rm -rf build dist .wheel-venv
	$(BIN)/python -m build --wheel -o dist >/dev/null
	$(PYTHON) -m venv .wheel-venv
	.wheel-venv/bin/python -m pip --disable-pip-version-check install -q -c constraints.txt "$$(grep '^torch==' constraints.txt)"
	.wheel-venv/bin/python -m pip --disable-pip-version-check install -q -c constraints.txt dist/*.whl
	cd /tmp && $(CURDIR)/.wheel-venv/bin/metarl families && $(CURDIR)/.wheel-venv/bin/metarl families show bandit
	rm -rf .wheel-venv build

benchmark: .venv/ready
	$(BIN)/python benchmarks/maml_trpo_iteration.py

clean:
	rm -rf .venv .wheel-venv build dist site *.egg-info
