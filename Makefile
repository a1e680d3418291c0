# Every target sets up what it needs on a fresh Debian 12 or 13 machine; all of them may be run again and again.
# Variables worth knowing: DEMO_SERVICE_PORT, DEMO_EDGE_PORT, DEMO_ETCD_PORT and the rest in deploy/demo.sh (demo, demo-edge), SOAK (how long),
# BASE (image to build on), DEBIAN_MIRROR.

SHELL := bash
export PATH := $(PATH):$(or $(CARGO_HOME),$(HOME)/.cargo)/bin:/usr/sbin:/sbin

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup build dist images lab lab-hosts demo demo-edge demo-hosts demo-down demo-edge-down test lint docs bench bench-scale fuzz soak mixed

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install what is missing (as root, or by sudo), check Rust and Docker
	@deploy/setup.sh

build: setup ## compile the release binaries
	@. deploy/lib.sh && release_build -p register -p discover

dist: setup ## make a release: Debian packages, tarballs, image files, bills of materials, into target/dist; ARCH=arm64: for that
	@deploy/dist.sh

images: setup ## build the images docker-register and docker-discover, and the demo's
	@deploy/build-images.sh

lab: setup ## fetch the HAProxy and etcd versions that the tests use
	@deploy/lab-binaries.sh
	@deploy/promtool.sh

demo demo-edge: export PROFILE = demo
test: export PROFILE = dev

demo: setup images ## show containers appearing in and leaving a load balancer; leaves the stack up
	@deploy/demo.sh up
	@deploy/demo.sh show

demo-down: ## stop the demo and remove everything of it
	@deploy/demo.sh down

demo-edge: setup images ## show three tiers behind the HTTP edge, each hop found through discover; leaves the stack up
	@deploy/demo.sh up edge
	@deploy/demo.sh show edge

demo-edge-down: ## stop that and remove everything of it
	@deploy/demo.sh down edge

demo-hosts: setup lab ## show seven hosts on this machine: containers come and go, one host is cut off and returns
	@deploy/hosts.sh demo

lab-hosts: setup lab ## bring such hosts up to play with: cut, freeze, lose packets; all of it goes at the end
	@deploy/hosts.sh up

test: setup lint lab images ## run every check and test, end to end ones included
	@deploy/test.sh

mixed: setup lab ## let the agents of another version, OLD=<tag or commit>, and these work together
	@deploy/mixed.sh

lint: setup ## check format, lints, documentation and licences
	cargo fmt --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS=-Dwarnings cargo doc --workspace --no-deps --locked
	@deploy/licences.sh

docs: setup ## build the API documentation
	cargo doc --workspace --no-deps --locked
	@echo "see target/doc/discover/index.html"

bench: setup lab images ## measure speed and cost; prints a table
	@. deploy/lib.sh && run_release bench

bench-scale: build lab ## measure what large sizes cost, each beside a tenth of it; takes up to 20 minutes
	@. deploy/lib.sh && run_release bench --scale

fuzz: setup ## feed the readers of labels, values and replies with rubbish, 60 s each
	@deploy/fuzz.sh

SOAK ?= 1h
soak: build lab ## live for SOAK (1h) under load, with random life and faults; prints what was held
	@. deploy/lib.sh && run_release soak --time $(SOAK)
