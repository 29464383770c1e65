# Everything is done by scripts/dev.py, which also works without make: `python3 scripts/dev.py test`.
PYTHON ?= python3

.PHONY: help demo test test-long bench lint

help:
	@$(PYTHON) scripts/dev.py --help

demo test test-long bench lint:
	@$(PYTHON) scripts/dev.py $@ $(ARGS)
