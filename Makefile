PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

.PHONY: demo demo-multi demo-3d test test-long lint clean-demo

demo: $(VENV)/installed
	$(RUN) create_nets_dataset_single.py
	$(RUN) train_single_arch.py
	$(RUN) eval_single.py
	$(RUN) interpolate_single_arch.py
	$(RUN) visualize_prep.py
	$(RUN) report.py photos

demo-multi: $(VENV)/installed
	$(RUN) create_nets_dataset_single.py
	$(RUN) train_single_arch.py
	$(RUN) eval_single.py
	$(RUN) interpolate_single_arch.py
	$(RUN) create_nets_dataset_multi.py
	$(RUN) train_multi_arch.py
	$(RUN) eval_multi.py
	$(RUN) interpolate_multi_arch.py
	$(RUN) visualize_prep.py photos --setting multi
	$(RUN) train_multi_arch.py photos --setting missing
	$(RUN) eval_multi.py photos --setting missing
	$(RUN) interpolate_multi_arch.py photos --setting missing
	$(RUN) train_latspace_single.py
	$(RUN) eval_latspace_single.py
	$(RUN) train_latspace_multi.py
	$(RUN) eval_latspace_multi.py
	$(RUN) report.py photos

demo-3d: $(VENV)/installed
	$(RUN) create_mlp_dataset.py
	$(RUN) train_mlps.py
	$(RUN) interpolate_mlps.py
	$(RUN) report.py chairs

test: $(VENV)/installed
	$(RUN) -m pytest

test-long: $(VENV)/installed
	$(RUN) -m pytest -m long

lint: $(VENV)/installed
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

clean-demo:
	rm -rf runs/photos models/input_lists/photos runs/chairs models/input_lists/chairs

$(VENV)/installed: requirements.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name one: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@
