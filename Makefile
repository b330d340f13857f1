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
#   bash-completion   what bash needs to complete command lines, as our script expects it
#   mandoc   reads manual pages as their makers mean them
#   makedumpfile python3-lzo python3-snappy python3-zstandard   dumps in every encoding, and compressors that are not ours
#   openssh-client netcat-openbsd   other hosts; the server is unpacked by the test that runs it, not installed: that would start one
APT = qemu-system-x86 iproute2 bpftrace binutils gcc g++ libc6-dev cpio openssl xfsprogs gdb e2fsprogs busybox-static tcpdump \
	nftables iptables procps ethtool iputils-ping python3 babeltrace2 trace-cmd linux-perf bash-completion mandoc \
	makedumpfile python3-lzo python3-snappy python3-zstandard dwarves curl iperf3 netcat-openbsd openssh-client xz-utils ibverbs-utils ibverbs-providers

# SOAKAPT is what soak needs besides: drgn, the oracle for dumps (FATHOM_DRGN may name the folder of a newer one); a browser for
# view --serve, which is 300 MB.
SOAKAPT = python3-drgn chromium-headless-shell

# DISTAPT is what dist-check needs besides: readers of packages, and an arm64 to run on.
DISTAPT = rpm lintian qemu-user-static

.PHONY: build demo test test-unit bench bench-packet bench-bypass bench-core insns lint dist dist-check deps soak compat scenarios rows promises

# Packages that no event passes through are compiled without inlining: the binary is 8 % smaller for it (internal/gen/deps
# holds its size against the limit). Programs take 1 ms longer to start.
COLD = ./answers/... ./internal/cli/... ./internal/doctor/... ./internal/callgraph/... ./internal/script/... ./internal/packets ./netstate/... ./lab/... \
	./traceevent/skeleton ./internal/xskwhy ./internal/remote ./bypass/held ./bypass/prog ./bypass/sockets ./bypass/verbs/... ./internal/polling \
	./lang/check/... ./lang/syntax/... ./probe ./probe/try ./usersym/... ./oops/... ./ctype/cdecl ./debuginfo/disasm ./kernel/walk/... ./bypass/steer/... \
	./record/session/... ./tracefs/... ./ir/... debug/... go/... encoding/... archive/... text/... html/... regexp/... crypto/... \
	github.com/vishvananda/... github.com/google/nftables/... github.com/mdlayher/... golang.org/x/arch/... \
	github.com/ianlancetaylor/... github.com/spf13/... github.com/cilium/...
OUT ?= fathom
LINK = $(GO) build -trimpath -ldflags '-s -w' $(foreach p,$(COLD),-gcflags '$(p)=-l')

build:
	$(LINK) -o $(OUT) ./cmd/fathom

# Seed 7 draws the port, and that the packets come in last at the device ruff.
demo: build
	./fathom demo
	@echo; echo "\$$ fathom lab try dropped-packet --seed 7"
	@printf '!%s/fathom packet --for 3s "udp port 24234"\nruff\n' '$(CURDIR)' | ./fathom lab try dropped-packet --seed 7

deps:
	@missing=; for p in $(APT); do dpkg -s $$p >/dev/null 2>&1 || missing="$$missing $$p"; done; \
	if [ -n "$$missing" ]; then echo "installing for the tests:$$missing"; apt-get update -q && apt-get install -y -q --no-install-recommends $$missing; fi

test-unit:
	$(GO) test ./...

test: build deps
	FATHOM_ACCEL=tcg FATHOM_GUESTS=$(GUESTS) FATHOM_ORACLES=require $(GO) test -timeout 30m ./...

# The page of the requirements' rows, out of a run of all tests; or out of RESULTS, files with what go test -json printed, the
# latest last.
RESULTS ?=
rows: build deps
ifeq ($(RESULTS),)
	-FATHOM_ACCEL=tcg FATHOM_GUESTS=$(GUESTS) FATHOM_ORACLES=require $(GO) test -json -timeout 30m ./... > .results.json
	$(GO) run ./internal/gen/rows .results.json
else
	$(GO) run ./internal/gen/rows $(RESULTS)
endif

# What fathom promises, TIMES times where it is drawn at random, a tenth of that in guests; docs/reliability.md is made of it. The
# tests of the other packages that show a promise run as in make test.
TIMES ?= 1000
promises: build deps
	-FATHOM_PROMISES=$(TIMES) FATHOM_KILLS=200 FATHOM_ACCEL=tcg FATHOM_GUESTS=$(GUESTS) FATHOM_ORACLES=require $(GO) test -json -count=1 -timeout 12h ./internal/promises > .promises.json
	-FATHOM_KILLS=200 FATHOM_ACCEL=tcg FATHOM_GUESTS=$(GUESTS) FATHOM_ORACLES=require $(GO) test -json -count=1 -timeout 120m \
		$$($(GO) run ./internal/gen/rows -packages) >> .promises.json
	$(GO) run ./internal/gen/rows -promises .promises.json
	@! grep -q '"Action":"fail"' .promises.json

# PEERS are further programs with bpftrace's command line to measure beside it: make bench PEERS=/path/to/bpftrace-0.27
bench: build deps
	$(GO) run ./internal/gen/bench $(PEERS) > docs/benchmarks.md.new && mv docs/benchmarks.md.new docs/benchmarks.md && cat docs/benchmarks.md

# PWRU is the path of pwru to measure beside fathom packet, in a guest and here
bench-packet: build deps
	$(GO) build -o .bench ./internal/gen/bench && trap 'rm -f .bench' EXIT && ./.bench packet-page $(PWRU) > docs/benchmarks-packet.md.new && mv docs/benchmarks-packet.md.new docs/benchmarks-packet.md && cat docs/benchmarks-packet.md

# What going around the kernel gains, beside ordinary sockets and a program in C
bench-bypass: build deps
	$(GO) run ./internal/gen/bench bypass-page > docs/benchmarks-bypass.md.new && mv docs/benchmarks-bypass.md.new docs/benchmarks-bypass.md && cat docs/benchmarks-bypass.md

# The first page of crash dumps beside crash and drgn, which need what make soak leaves in the cache: vmlinux with debug
# information of both kernels. DRGN is a folder with a newer drgn, built in place
bench-core: APT += $(SOAKAPT) crash
bench-core: build deps
	$(GO) build -o .bench ./internal/gen/bench && trap 'rm -f .bench' EXIT && ./.bench core-page $(DRGN) > docs/benchmarks-core.md.new && mv docs/benchmarks-core.md.new docs/benchmarks-core.md && cat docs/benchmarks-core.md

# PEER is bpftrace 0.27 or later, TOOLS the folder of its tools: make insns PEER=/path/to/bpftrace TOOLS=/path/to/tools
insns:
	$(GO) run ./internal/gen/insns $(PEER) $(TOOLS) > docs/insns.md.new && mv docs/insns.md.new docs/insns.md && cat docs/insns.md

lint:
	@fmt=$$(gofmt -l $$(git ls-files '*.go')); if [ -n "$$fmt" ]; then echo "gofmt would change: $$fmt"; exit 1; fi
	$(GO) vet ./...
	$(GO) run ./internal/gen/deps -check
	$(GO) tool -modfile=tools/go.mod staticcheck ./...

# What is handed out: static binaries, packages with manual pages and completions, what is in them, checksums. Equal sources
# and an equal Go give equal bytes.
DIST ?= dist
dist:
	@rm -rf $(DIST) && mkdir -p $(DIST)
	for arch in amd64 arm64; do GOARCH=$$arch $(LINK) -o $(DIST)/fathom-linux-$$arch ./cmd/fathom || exit 1; done
	$(GO) run ./internal/gen/dist $(DIST)

# dist-check installs the packages into a folder, runs the binary for arm64, and makes all of it twice.
dist-check: APT += $(DISTAPT)
dist-check: deps dist
	rm -rf dist.again && $(MAKE) dist DIST=dist.again
	FATHOM_DIST=$(CURDIR)/dist FATHOM_DIST_AGAIN=$(CURDIR)/dist.again FATHOM_ORACLES=require $(GO) test -count=1 -v ./internal/gen/dist
	rm -rf dist.again

# What takes longer than a test may: every fuzz target for FUZZTIME, PROGRAMS random programs here and in each guest, and
# the tests many times over. Pictures of pages, as a browser shows them, are left in .artefacts.
FUZZTIME ?= 10m
PROGRAMS ?= 20000
soak: APT += $(SOAKAPT) $(DISTAPT)
soak: build deps
	@set -e; for f in $$(grep -rlE '^func Fuzz' --include=*_test.go . | sort); do \
		for t in $$(grep -oE '^func Fuzz[A-Za-z0-9]+' $$f | sed 's/func //'); do \
			echo "fuzzing $$t in $$(dirname $$f)"; $(GO) test -run '^$$' -fuzz="^$$t$$" -fuzztime=$(FUZZTIME) -parallel=2 ./$$(dirname $$f); \
		done; done
	FATHOM_PROGRAMS=$(PROGRAMS) FATHOM_ACCEL=tcg FATHOM_GUESTS=$(GUESTS) FATHOM_ORACLES=require $(GO) test -timeout 12h ./internal/progen
	FATHOM_MUTATIONS=10000 $(GO) test -timeout 60m ./vmcore ./oops ./debuginfo/... ./record/ctf ./record/tracedat ./record/perfdata ./traceevent
	FATHOM_MUTATIONS=10000 FATHOM_DEBUGINFO=1 FATHOM_ACCEL=tcg FATHOM_GUESTS=$(GUESTS) FATHOM_ORACLES=require $(GO) test -timeout 180m ./kernel/dump
	FATHOM_VMLINUX=$$(ls -t $${XDG_CACHE_HOME:-$$HOME/.cache}/fathom/debuginfo/*/vmlinux | head -1) FATHOM_ORACLES=require $(GO) test ./debuginfo/dwarfline
	$(MAKE) dist-check
	mkdir -p .artefacts
	FATHOM_ARTEFACTS=$(CURDIR)/.artefacts FATHOM_SOAK=1 FATHOM_KILLS=200 FATHOM_ACCEL=tcg FATHOM_GUESTS=$(GUESTS) FATHOM_ORACLES=require $(GO) test -count=5 -timeout 120m ./...

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
