PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

.DEFAULT_GOAL := help
.PHONY: help demo demo-multi demo-sane demo-stitch demo-across demo-3d demo-unseen cifar10-small test test-all test-long lint clean-demo

help: ## lists these targets
	@echo "Targets that run Python first make the virtual environment $(VENV) if it is missing. Times are on 2 CPU cores."
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: photos-single ## trains 132 small ResNet8 on photos and their NetSpace, and draws the figures: 3 minutes
	$(RUN) visualize_prep.py
	$(RUN) report.py photos

# Nets this small gain little from a second thread. So independent scripts run two at a time, with one thread each.
demo-multi: $(VENV)/installed ## runs every image experiment on photos, with four architectures, two of them unseen: 8 minutes
	OMP_NUM_THREADS=1 $(MAKE) --jobs 2 photos-nets-0 photos-nets-1 photos-single photos-multi photos-missing photos-single-search
	$(RUN) report.py photos

demo-sane: $(VENV)/installed ## trains a zoo of nets, SANE and NetSpace on it, predicts properties, and fine-tunes samples: 8 minutes
	OMP_NUM_THREADS=1 $(MAKE) --jobs 2 photos-properties photos-samples
	$(RUN) report.py photos

demo-stitch: $(VENV)/installed ## stitches pairs of strong nets, compares nets inside, and predicted instances with their targets: 5 minutes
	OMP_NUM_THREADS=1 $(MAKE) --jobs 2 photos-stitches photos-inside
	$(RUN) report.py photos

# Both ranks of a zoo run side by side; the first waits for the other.
demo-across: $(VENV)/installed ## trains NetSpace and SANE alike on the same nets, with ablations and three seeds: 60 minutes
	OMP_NUM_THREADS=1 $(MAKE) --jobs 2 photos-large-0 photos-large-1 photos-zoo-0 photos-zoo-1 \
		photos-sizes-0 photos-sizes-1 photos-sizes-2 photos-ablations-0 photos-ablations-1 photos-ablations-2
	$(RUN) compare_systems.py
	$(RUN) report.py photos

# Parts of the demos. A part that runs again resumes, or ends at once if it is done.
.PHONY: photos-nets-0 photos-nets-1 photos-instances photos-single photos-stitches photos-inside photos-single-search photos-multi photos-missing photos-zoo-0 photos-zoo-1 photos-zoo-space photos-sane photos-properties photos-samples photos-large-0 photos-large-1 photos-table-0 photos-table-1 photos-table-2 photos-ablations-0 photos-ablations-1 photos-ablations-2 photos-sizes-0 photos-sizes-1 photos-sizes-2 unseen-fits-0 unseen-fits-1

# Their progress bars are below those of the part that runs beside them.
photos-nets-0 photos-multi photos-zoo-0 photos-zoo-space photos-properties photos-stitches photos-large-0 photos-table-0 photos-table-2 photos-ablations-0 photos-ablations-2 photos-sizes-1: export TQDM_POSITION = 1

photos-nets-0 photos-nets-1: photos-nets-%: $(VENV)/installed
	RANK=$* WORLD_SIZE=2 $(RUN) create_nets_dataset_multi.py

photos-instances: $(VENV)/installed
	$(RUN) create_nets_dataset_single.py

photos-single: photos-instances
	$(RUN) train_single_arch.py
	$(RUN) eval_single.py
	$(RUN) interpolate_single_arch.py

photos-stitches: photos-instances
	$(RUN) stitch_nets.py
	$(RUN) compare_nets.py

photos-inside: photos-single
	$(RUN) inside_similarity.py

photos-single-search: photos-single photos-nets-0 photos-nets-1
	$(RUN) train_latspace_single.py
	$(RUN) eval_latspace_single.py

photos-multi: photos-nets-0 photos-nets-1
	$(RUN) train_multi_arch.py
	$(RUN) eval_multi.py
	$(RUN) interpolate_multi_arch.py
	$(RUN) visualize_prep.py photos --setting multi
	$(RUN) train_latspace_multi.py
	$(RUN) eval_latspace_multi.py

photos-missing: photos-nets-0 photos-nets-1
	$(RUN) train_multi_arch.py photos --setting missing --num-steps 3528
	$(RUN) eval_multi.py photos --setting missing
	$(RUN) interpolate_multi_arch.py photos --setting missing

photos-zoo-0 photos-zoo-1: photos-zoo-%: $(VENV)/installed
	RANK=$* WORLD_SIZE=2 $(RUN) create_nets_dataset_zoo.py photos --side-by-side 66

photos-large-0 photos-large-1: photos-large-%: $(VENV)/installed
	RANK=$* WORLD_SIZE=2 $(RUN) create_nets_dataset_zoo.py photos --name zoo-large --num-nets 440 --side-by-side 110

photos-table-0 photos-table-1 photos-table-2: photos-table-%: photos-zoo-0 photos-zoo-1
	$(RUN) compare_systems.py photos --only table --seeds $*

photos-ablations-0 photos-ablations-1 photos-ablations-2: photos-ablations-%: photos-table-%
	$(RUN) compare_systems.py photos --only ablations symmetry --seeds $*

photos-sizes-0 photos-sizes-1 photos-sizes-2: photos-sizes-%: photos-large-0 photos-large-1
	$(RUN) compare_systems.py photos --only sizes --seeds $*

photos-zoo-space: photos-zoo-0 photos-zoo-1
	$(RUN) train_single_arch.py photos --instances zoo

photos-sane: photos-zoo-0 photos-zoo-1
	$(RUN) train_sane.py

photos-properties: photos-zoo-space photos-sane
	$(RUN) predict_properties.py

photos-samples: photos-sane
	$(RUN) sample_finetune.py

demo-3d: $(VENV)/installed ## fits SIRENs to 64 chairs, trains their NetSpace, and draws shapes along lines: 5 minutes
	$(RUN) create_mlp_dataset.py
	$(RUN) train_mlps.py
	$(RUN) interpolate_mlps.py
	$(RUN) report.py chairs

# Both ranks of the fits run side by side; the first waits for the other.
demo-unseen: $(VENV)/installed ## fits SIRENs to 1,280 chairs, and embeds those that were never seen: 20 to 30 minutes
	OMP_NUM_THREADS=1 $(MAKE) --jobs 2 unseen-fits-0 unseen-fits-1
	$(RUN) train_mlps.py chairs-unseen
	$(RUN) interpolate_mlps.py chairs-unseen
	$(RUN) interpolate_mlps.py chairs-unseen --split test
	$(RUN) retrieve_mlps.py chairs-unseen
	$(RUN) report.py chairs-unseen

unseen-fits-0: export TQDM_POSITION = 1
unseen-fits-0 unseen-fits-1: unseen-fits-%: $(VENV)/installed
	RANK=$* WORLD_SIZE=2 $(RUN) create_mlp_dataset.py chairs-unseen

# CIFAR-10 at a hundredth of the paper's cost (docs/results.md): 44 ResNet8 of 20 to 900 steps, 1,250 steps of NetSpace.
SMALL := cifar10 --runs-dir runs/small --lists-dir runs/small/input_lists
SMALL_STEPS := 20 22 24 26 28 31 34 37 41 44 48 53 58 63 69 75 82 90 98 108 117 128 \
	140 153 167 183 200 218 239 261 285 311 340 371 406 443 484 529 578 632 690 754 824 900

cifar10-small: $(VENV)/installed ## draws Fig. 3c and 3d on CIFAR-10, with few and briefly trained instances: 1 hour
	$(RUN) create_nets_dataset_single.py $(SMALL) --num-train 32 --num-val 4 --num-test 8 --side-by-side 44 \
		--image-batch 64 --learning-rate 2e-3 --classifier-start zero --lengths-in steps --lengths $(SMALL_STEPS)
	$(RUN) train_single_arch.py $(SMALL) --prep-shape 32 2432 --emb-size 1024 --grid 32 --row-length 256 --row-channels 32 \
		--affine-start instance --affine-quantile 0.8 --prep-noise 0.3 --reorder-channels --meta-batch 4 --image-batch 64 \
		--num-steps 1250 --validate-every 625 --learning-rate 3e-3 --schedule one-cycle --clip-norm 1
	$(RUN) eval_single.py $(SMALL)
	$(RUN) interpolate_single_arch.py $(SMALL)
	$(RUN) visualize_prep.py $(SMALL)
	$(RUN) report.py $(SMALL)

# Two processes of one thread each: nets this small gain little by a second thread.
PYTEST := OMP_NUM_THREADS=1 $(RUN) -m pytest -n 2

test: $(VENV)/installed ## the quick tests: properties, bad input, every script once in miniature
	$(PYTEST)

test-all: $(VENV)/installed ## also several ranks, killed and resumed scripts, the report in a browser
	$(PYTEST) -m 'not long'

test-long: $(VENV)/installed ## every script killed at 20 random moments, and run again
	$(PYTEST) -m long

lint: $(VENV)/installed ## checks style and type hints
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

clean-demo: ## removes the results of the demos: runs/photos, runs/chairs, runs/chairs-unseen and their input lists
	rm -rf $(foreach name,photos chairs chairs-unseen,runs/$(name) models/input_lists/$(name))

$(VENV)/installed: requirements.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; type: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@
