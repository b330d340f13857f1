# Targets are complete on a fresh Debian 12 with Go: `make demo` and `make test` install with apt what they need.
export CGO_ENABLED = 0
GO ?= go
GUESTS ?= all

# What tests and benchmarks need beside Go, and why.
#   qemu-system-x86   kernels to test in
#   iproute2          oracle for namespaces and links
#   bpftrace          the peer: output and speed
#   binutils gcc g++ libc6-dev   programs to trace, kernel modules, nm and objdump as oracles
#   cpio              oracle for the initramfs writer
#   openssl           a program to trace: TLS
#   xfsprogs          a file system to trace
#   gdb               oracle for the symbols of a live guest
#   e2fsprogs busybox-static   a disk image with a shell, to boot from
#   tcpdump           oracle for packet filters and for packets as text
#   dwarves           pahole: oracle for how structs lie
#   nftables iptables procps   oracles for rules as text and for settings
#   babeltrace2 trace-cmd linux-perf   oracles for recordings: they read ours, and we read theirs
#   nftables ethtool iputils-ping python3   scenarios: faults that others wrote as shell scripts
#   makedumpfile python3-lzo python3-snappy python3-zstandard   dumps in every encoding, and compressors that are not ours
APT = qemu-system-x86 iproute2 bpftrace binutils gcc g++ libc6-dev cpio openssl xfsprogs gdb e2fsprogs busybox-static tcpdump \
	nftables iptables procps ethtool iputils-ping python3 babeltrace2 trace-cmd linux-perf \
	makedumpfile python3-lzo python3-snappy python3-zstandard dwarves

# SOAKAPT is what soak needs besides: drgn, the oracle for dumps.
SOAKAPT = python3-drgn

.PHONY: build demo test test-unit bench bench-packet insns lint dist deps soak compat scenarios

build:
	$(GO) build -trimpath -ldflags '-s -w' -o fathom ./cmd/fathom

demo: build
	./fathom demo

deps:
	@missing=; for p in $(APT); do dpkg -s $$p >/dev/null 2>&1 || missing="$$missing $$p"; done; \
	if [ -n "$$missing" ]; then echo "installing for the tests:$$missing"; apt-get update -q && apt-get install -y -q --no-install-recommends $$missing; fi

test-unit:
	$(GO) test ./...

test: build deps
	FATHOM_ACCEL=tcg FATHOM_GUESTS=$(GUESTS) FATHOM_ORACLES=require $(GO) test -timeout 30m ./...

# PEERS are further programs with bpftrace's command line to measure beside it: make bench PEERS=/path/to/bpftrace-0.27
bench: build deps
	$(GO) run ./internal/gen/bench $(PEERS) > docs/benchmarks.md.new && mv docs/benchmarks.md.new docs/benchmarks.md && cat docs/benchmarks.md

# PWRU is the path of pwru to measure beside fathom packet, in a guest and here
bench-packet: build deps
	$(GO) build -o .bench ./internal/gen/bench && trap 'rm -f .bench' EXIT && ./.bench packet-page $(PWRU) > docs/benchmarks-packet.md.new && mv docs/benchmarks-packet.md.new docs/benchmarks-packet.md && cat docs/benchmarks-packet.md

# PEER is bpftrace 0.27 or later, TOOLS the folder of its tools: make insns PEER=/path/to/bpftrace TOOLS=/path/to/tools
insns:
	$(GO) run ./internal/gen/insns $(PEER) $(TOOLS) > docs/insns.md.new && mv docs/insns.md.new docs/insns.md && cat docs/insns.md

lint:
	@fmt=$$(gofmt -l $$(git ls-files '*.go')); if [ -n "$$fmt" ]; then echo "gofmt would change: $$fmt"; exit 1; fi
	$(GO) vet ./...
	$(GO) run ./internal/gen/deps -check
	$(GO) tool -modfile=tools/go.mod staticcheck ./...

dist:
	@mkdir -p dist
	for arch in amd64 arm64; do GOARCH=$$arch $(GO) build -trimpath -ldflags '-s -w' -o dist/fathom-linux-$$arch ./cmd/fathom || exit 1; done
	cd dist && sha256sum fathom-linux-* > SHA256SUMS

# What takes longer than a test may: every fuzz target for FUZZTIME, PROGRAMS random programs here and in each guest, and
# the tests many times over.
FUZZTIME ?= 10m
PROGRAMS ?= 20000
soak: APT += $(SOAKAPT)
soak: build deps
	@set -e; for f in $$(grep -rlE '^func Fuzz' --include=*_test.go . | sort); do \
		for t in $$(grep -oE '^func Fuzz[A-Za-z0-9]+' $$f | sed 's/func //'); do \
			echo "fuzzing $$t in $$(dirname $$f)"; $(GO) test -run '^$$' -fuzz="^$$t$$" -fuzztime=$(FUZZTIME) -parallel=2 ./$$(dirname $$f); \
		done; done
	FATHOM_PROGRAMS=$(PROGRAMS) FATHOM_ACCEL=tcg FATHOM_GUESTS=$(GUESTS) FATHOM_ORACLES=require $(GO) test -timeout 12h ./internal/progen
	FATHOM_MUTATIONS=10000 $(GO) test -timeout 60m ./vmcore ./oops ./debuginfo/... ./record/ctf ./record/tracedat ./record/perfdata ./traceevent
	FATHOM_DEBUGINFO=1 FATHOM_ACCEL=tcg FATHOM_GUESTS=$(GUESTS) FATHOM_ORACLES=require $(GO) test -timeout 60m ./kernel/dump
	FATHOM_VMLINUX=$$(ls -t $${XDG_CACHE_HOME:-$$HOME/.cache}/fathom/debuginfo/*/vmlinux | head -1) FATHOM_ORACLES=require $(GO) test ./debuginfo/dwarfline
	FATHOM_SOAK=1 FATHOM_KILLS=200 FATHOM_ACCEL=tcg FATHOM_GUESTS=$(GUESTS) FATHOM_ORACLES=require $(GO) test -count=5 -timeout 120m ./...

# bpftrace's own runtime tests and tools against this binary: SUITE is the folder of the runner (suite.py, tools.py),
# PEER a checkout of bpftrace, PROGS its compiled test programs.
compat: build
	python3 $(SUITE)/suite.py --suite $(PEER)/tests --progs $(PROGS) --binary $(CURDIR)/fathom --where host --jobs 2 --retry 1 \
		--features $(SUITE)/baselines/host-0.27.1.json --files "$$(cat $(SUITE)/OPEN)"
	python3 $(SUITE)/tools.py run --dir $(PEER)/tools --binary $(CURDIR)/fathom --template '{bin} trace'

# Faults in networks as shell scripts, watched by fathom packet and scored: DIR is their folder, SCENARIOS further flags
# (-only ID,ID; -allow-system-changes in a machine that may be changed).
scenarios: build deps
	$(GO) run ./internal/gen/scenarios -v $(SCENARIOS) $(DIR)
