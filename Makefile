# GNU make 3.81, bash 3.2 and BSD tools are enough.
#   make serve [PORT=1235] [HOST=…] [CONFIG=file] [PYTHON=…]   (LMX_HOME=… to keep everything elsewhere)
#   make test [ARGS='tests/api -k stream']
SHELL := /bin/bash
export PYTHON
PY := .venv/bin/python
ENVIRONMENT := requirements/environment.sh
# HOST and CONFIG count only when said to make: a shell may export its machine's name as HOST.
said = $(if $(filter command,$(origin $(1))),$(2) "$($(1))")
SERVE_OPTIONS = $(if $(PORT),--port "$(PORT)") $(call said,HOST,--host) $(call said,CONFIG,--config)
SOURCES := manage.py inference lmx_site models_admin monitoring requirements tests

.PHONY: serve test lint fix bench bench-gpu pins check-pins clean

serve:
	@$(ENVIRONMENT) base
	@exec $(PY) -m lmx_site.cli serve $(SERVE_OPTIONS)

test:
	@$(ENVIRONMENT) base test chromium clients node
	@$(PY) -X dev -W error -m pytest $(ARGS)

lint:
	@$(ENVIRONMENT) base test lint
	@failed=0; \
	$(PY) -m ruff format --check --quiet . || { echo "Some files are not formatted: make fix"; failed=1; }; \
	$(PY) -m ruff check --quiet . || failed=1; \
	$(PY) -m mypy --no-error-summary $(SOURCES) || failed=1; \
	$(PY) -m djlint --quiet --lint templates || failed=1; \
	.venv/bin/lint-imports --no-logo >.venv/imports.log || { cat .venv/imports.log; failed=1; }; \
	if [ $$failed = 0 ]; then echo "Lint: clean (format, rules, types, templates, imports)"; fi; exit $$failed

fix:
	@$(ENVIRONMENT) lint
	@$(PY) -m ruff check --quiet --fix . ; $(PY) -m ruff format --quiet .

bench:
	@$(ENVIRONMENT) base test
	@$(PY) -m tests.bench.peers
	@$(PY) -m tests.bench $(ARGS)

bench-gpu:
	@$(ENVIRONMENT) base test
	@$(PY) -m tests.bench.gpu $(ARGS)

# Resolves requirements/*.in into *.txt; needs uv.
pins:
	@$(PY) requirements/pins.py write

# Asks the package index for a wheel of every pin: Linux x86-64 and macOS arm64, every supported Python (minutes).
check-pins:
	@$(ENVIRONMENT) base
	@$(PY) requirements/pins.py check

clean:
	@rm -rf .venv .venvs build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
