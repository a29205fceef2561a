# Two commands on a fresh machine: `make demo` and `make test`. Both install what they need into $(VENV).
PYTHON ?= python3
VENV ?= $(if $(VIRTUAL_ENV),$(VIRTUAL_ENV),.venv)
BIN := $(VENV)/bin
USE := onnx,rtsp,view,control,provisioning
STAMP := $(VENV)/.bluelamp-$(shell sha256sum pyproject.toml | cut -c1-16)
JSON ?=
ARGS ?=

.PHONY: help demo console test test-slow lint evaluate bench package attest image van sbom audit lock clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: $(STAMP)-use  ## the main job on built-in data: a street clip, a sealed watchlist, a real broker, opened alerts
	@$(BIN)/python -m demo.run $(if $(JSON),--json) $(ARGS)

console: $(STAMP)-use  ## the control room's console on built-in data, in your browser, until Ctrl-C
	@$(BIN)/python -m demo.console $(ARGS)

attest: $(STAMP)-use  ## prove on built-in data that a unit keeps nothing: searches disk, memory and traffic for canaries
	@$(BIN)/python -m demo.attest $(ARGS)

package: $(STAMP)-use  ## the unit as a Debian package, in dist/
	$(BIN)/python packaging/build.py $(ARGS)

IMAGE_TOOLS := mmdebstrap cryptsetup-bin squashfs-tools dosfstools mtools fdisk zstd cpio binutils kmod sbsigntool efitools faketime \
	rauc openssl systemd-boot-efi debian-archive-keyring uidmap
VAN_TOOLS := qemu-system-x86 qemu-utils ovmf swtpm mtools dosfstools openssl mosquitto

image: $(STAMP)-use  ## the unit as a disk that boots, and an update bundle, in dist/ (as root, on Debian 12; ARGS=--debug)
	@dpkg -s $(IMAGE_TOOLS) >/dev/null 2>&1 || apt-get install -y --no-install-recommends $(IMAGE_TOOLS)
	$(BIN)/python packaging/image/image.py $(ARGS)

van: $(STAMP)-use  ## boot that disk in a virtual van and drive it from outside (SHORT=1: one deployment; JSON=1: one line)
	@dpkg -s $(VAN_TOOLS) >/dev/null 2>&1 || apt-get install -y --no-install-recommends $(VAN_TOOLS) >&2
	@$(BIN)/python tests/van/van.py $(if $(SHORT),--short) $(if $(JSON),--json) $(ARGS)

sbom: $(STAMP)-use  ## bills of materials (CycloneDX) of the package and the image, in dist/
	$(BIN)/python packaging/sbom.py write $(ARGS)

audit: $(STAMP)-use  ## licences of what is shipped, and known faults by the OSV service; says so where it cannot be reached
	$(BIN)/python packaging/sbom.py licences $(ARGS)
	$(BIN)/python packaging/sbom.py audit $(ARGS)

lock: $(STAMP)-use  ## renew the lock files (versions and SHA-256 of every library) in packaging/locks
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile pyproject.toml --extra onnx --extra rtsp --extra view --extra control --extra provisioning \
		--extra dev --universal --python-version 3.11 --generate-hashes --no-header --quiet -o packaging/locks/development.txt
	$(BIN)/uv pip compile pyproject.toml --extra view --python-version 3.11 --python-platform x86_64-manylinux_2_28 \
		--constraint packaging/constraints.txt --generate-hashes --no-header --quiet -o packaging/locks/unit.txt

test: $(STAMP)-dev lint  ## lint, types and the fast tests
	$(BIN)/python -m pytest

test-slow: $(STAMP)-train  ## the long tests too (training smoke run, load, fuzzing)
	$(BIN)/python -m pytest -m slow --timeout 2400

lint: $(STAMP)-dev  ## ruff and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

evaluate: $(STAMP)-use  ## accuracy of the built-in packs (on ../shared/data where it is, else on the demo's people)
	$(BIN)/python -m provisioning.evaluation $(ARGS)

bench: $(STAMP)-use  ## time per stage, latency and memory of the whole path
	$(BIN)/python -m benchmarks.pipeline $(ARGS)

clean:  ## remove caches and the environment made here
	rm -rf .venv .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist *.egg-info

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(STAMP)-use: | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[$(USE)]"
	@touch $@

$(STAMP)-dev: | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[$(USE),dev]"
	@touch $@ $(STAMP)-use

$(STAMP)-train: | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[$(USE),dev,train]"
	@touch $@ $(STAMP)-dev $(STAMP)-use
