# The two commands of the README are `make conform` and `make test`; the rest is for people who work on the project.
# Every target works as root and as an ordinary user, and does all of its own set-up.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

GO ?= go
# The version is stamped here and not by the toolchain, which refuses a clone that belongs to another user.
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
GOBUILD := $(GO) build -buildvcs=false -trimpath -ldflags '-X main.version=$(VERSION)'
# The limit is for one package: judging the deliberately wrong enforcers takes minutes where other work runs beside it.
GOTEST := $(GO) test -buildvcs=false -timeout 60m
# Programs that only tests need (nft, nmap, jq, python3, chromium, and the databases' servers and clients). With DRAWBRIDGE_REQUIRE_TOOLS=1 a test whose program is missing
# fails instead of being left out.
WITH_TOOLS := .ci/tools --
REPORT ?= report
CONFORM_FLAGS ?=
BENCH_FLAGS ?=
SCALE_FLAGS ?=
# Go's benchmarks of what is pure, and of the enforcer's whole way in a namespace; those of the lab are in `drawbridge bench lab`.
BENCHED := ./enforcer/... ./sim/client
BENCH_TIME ?= 200ms
# What may be another in the operators' build; the rest of its tests are of what both builds are made of.
OPERATOR_TESTS := ^Test(TheOperators|WrongUse$$|HelpAndCompletion|AnOperatorAsks|RunFollowsItsFile)

.PHONY: help build operator deb conform conform-real test mutants patience race lint changes scale bench bench-tls readme clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: operator ## build bin/drawbridge, and bin/drawbridge-operator, by which it plays the reference enforcer
	CGO_ENABLED=0 $(GOBUILD) -o bin/drawbridge ./cmd/drawbridge

conform: build ## judge the reference enforcer by the whole specification; writes report/
	./bin/drawbridge conform --report '$(REPORT)' $(CONFORM_FLAGS)

conform-real: build ## the same with the distribution's database servers, preparing those; writes report-real/
	$(WITH_TOOLS) ./bin/drawbridge conform --servers real --report '$(REPORT)-real' $(CONFORM_FLAGS)

operator: ## build bin/drawbridge-operator, the program for hosts and gateways: the enforcer alone
	CGO_ENABLED=0 $(GOBUILD) -ldflags '-s -w -X main.version=$(VERSION)' -tags operator -o bin/drawbridge-operator ./cmd/drawbridge

# dpkg wants versions that begin with a digit.
DEB_VERSION ?= 0.0.0+$(subst -,.,$(VERSION))
deb: operator ## build the Debian package build/drawbridge_*.deb, and try to install and remove it
	rm -rf build && mkdir -p build/deb/man
	cp bin/drawbridge-operator build/deb/drawbridge
	CGO_ENABLED=0 $(GOBUILD) -tags operator,manual -o build/deb/manual ./cmd/drawbridge
	build/deb/manual manual build/deb/man && gzip -9n build/deb/man/*.8
	build/deb/drawbridge enforce schema > build/deb/policy.schema.json
	GO='$(GO)' deploy/deb/notices > build/deb/THIRD_PARTY && gzip -9n build/deb/THIRD_PARTY
	gzip -9nc CHANGELOG.md > build/deb/CHANGELOG.md.gz
	printf 'drawbridge (%s) unstable; urgency=medium\n\n  * What is new is in CHANGELOG.md.gz.\n\n -- drawbridge developers <drawbridge@drawbridge.invalid>  %s\n' \
		'$(DEB_VERSION)' "$$(git log -1 --format=%aD)" | gzip -9n > build/deb/changelog.gz
	$(GO) -C deploy/deb build -o ../../build/deb/nfpm github.com/goreleaser/nfpm/v2/cmd/nfpm
	ARCH=$$($(GO) env GOARCH) VERSION='$(DEB_VERSION)' build/deb/nfpm package -f deploy/deb/nfpm.yaml -p deb -t build/
	deploy/deb/try build/drawbridge_*.deb

test: build ## run every test of the project, preparing the programs that tests need
	./bin/drawbridge sim check # else the tests that need a network of their own would all be left out
	$(GOTEST) -run '^$$' ./... >/dev/null # builds all tests, side by side
	DRAWBRIDGE_REQUIRE_TOOLS=1 $(WITH_TOOLS) $(GOTEST) -p 1 ./... # one package after the other: what they judge takes all processors
	DRAWBRIDGE_REQUIRE_TOOLS=1 $(WITH_TOOLS) $(GOTEST) -tags operator -run '$(OPERATOR_TESTS)' ./cmd/drawbridge

mutants: build ## judge every deliberately wrong enforcer by all scenarios; `make test` takes those that must catch it
	$(WITH_TOOLS) ./bin/drawbridge conform --mutants --all-scenarios --report '$(REPORT)'

patience: build ## judge everything by patience too, and compare; `make test` takes some of it
	DRAWBRIDGE_TEST_ALL_SCENARIOS=1 DRAWBRIDGE_REQUIRE_TOOLS=1 $(WITH_TOOLS) $(GOTEST) -count=1 -run '^TestPatience' -v ./cmd/drawbridge

race: ## run every test under the race detector (needs a C compiler)
	DRAWBRIDGE_REQUIRE_TOOLS=1 CGO_ENABLED=1 $(WITH_TOOLS) $(GOTEST) -race ./...

lint: ## formatting, vet, the rules of the architecture; golangci-lint too where it is installed
	@unformatted=$$(gofmt -l $$(git ls-files --cached --others --exclude-standard '*.go')); \
	if [ -n "$$unformatted" ]; then printf 'not formatted by gofmt:\n%s\n' "$$unformatted" >&2; exit 1; fi
	$(GO) vet -buildvcs=false ./...
	$(GO) vet -buildvcs=false -tags operator ./cmd/drawbridge # the other build of it has files and tests of its own,
	$(GO) vet -buildvcs=false -tags operator,manual ./cmd/drawbridge # and so has the one that prints the manual
	$(GOTEST) -count=1 -run '^TestArchitecture' .
	@if command -v golangci-lint >/dev/null; then golangci-lint run; \
	else echo 'lint: golangci-lint is not installed, its further checks were left out'; fi

changes: build ## change a policy 10,000 times under probes; some minutes
	DRAWBRIDGE_TEST_CHANGES=10000 DRAWBRIDGE_REQUIRE_TOOLS=1 $(WITH_TOOLS) $(GOTEST) -count=1 -run "^TestChangesUnderProbes" -v ./cmd/drawbridge

scale: build ## judge the reference enforcer with 1,000 databases on a host, and 1,000 and 10,000 behind a gateway; many minutes, writes report-scale/
	./bin/drawbridge conform sample --dedicated 0 --shared 1000 --report '$(REPORT)-scale/host-1000' $(SCALE_FLAGS)
	./bin/drawbridge conform sample --dedicated 1000 --shared 0 --report '$(REPORT)-scale/gateway-1000' $(SCALE_FLAGS)
	./bin/drawbridge conform sample --dedicated 10000 --shared 0 --report '$(REPORT)-scale/gateway-10000' $(SCALE_FLAGS)

bench: build ## compare with nft, iptables, ipset, ip and mininet, then Go's benchmarks; some minutes, writes report/bench/
	code=0; \
	.ci/tools --bench -- ./bin/drawbridge bench all --report '$(REPORT)/bench' $(BENCH_FLAGS) || code=$$?; \
	mkdir -p '$(REPORT)/bench'; \
	$(GOTEST) -p 1 -run '^$$' -bench . -benchmem -benchtime $(BENCH_TIME) $(BENCHED) | tee '$(REPORT)/bench/go.txt'; \
	exit $$code

bench-tls: build ## compare the gate with no firewall and with HAProxy under load on real servers; some 3 minutes, writes report/bench-tls/
	$(WITH_TOOLS) ./bin/drawbridge bench tls --report '$(REPORT)/bench-tls' $(BENCH_FLAGS)

readme: ## copy what the last `make conform` said into README.md
	$(GO) run ./cmd/readme -report '$(REPORT)' -readme README.md

clean: ## delete what the other targets made in this directory
	rm -rf bin build '$(REPORT)' '$(REPORT)-real' '$(REPORT)-scale'
