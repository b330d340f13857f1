/* xsk: a small AF_XDP program to compare fathom's with: tx sends the same frame again and again, rx counts what comes to a port, ping
 * sends a frame when the answer to the one before has come, echo answers.
 *
 *   xsk tx|rx|ping|echo NETNS DEVICE SECONDS|COUNT SRCMAC DSTMAC SRCIP DSTIP PORT SIZE
 *
 * It says "ready" when its socket is bound, tx ends after SECONDS, ping after COUNT round trips and a tenth before that is not told, rx and
 * echo with their input, and what it did is one JSON object. Rings are used as libxdp's xsk.h uses them: one queue, copy mode, need_wakeup, batches of 64, spinning.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/if_link.h>
#include <linux/if_xdp.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { FRAMES = 4096, FRAME = 4096, RING = 2048, BATCH = 64 };

struct ring {
	_Atomic uint32_t *producer, *consumer, *flags;
	void *desc;
	uint32_t own, seen;
};

static unsigned char *umem;
static int sock;

static void die(const char *what) {
	fprintf(stderr, "xsk: %s: %s\n", what, strerror(errno));
	exit(1);
}

static double now(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static void map_ring(struct ring *r, const struct xdp_ring_offset *o, size_t entry, off_t page) {
	char *p = mmap(0, o->desc + RING * entry, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, sock, page);
	if (p == MAP_FAILED)
		die("map ring");
	r->producer = (void *)(p + o->producer);
	r->consumer = (void *)(p + o->consumer);
	r->flags = (void *)(p + o->flags);
	r->desc = p + o->desc;
}

static struct ring fill, comp, rx, tx;

static void open_socket(const char *dev) {
	int n = RING;
	struct xdp_umem_reg reg = {0};
	struct xdp_mmap_offsets off;
	socklen_t len = sizeof off;
	struct sockaddr_xdp sa = {.sxdp_family = AF_XDP, .sxdp_flags = XDP_COPY | XDP_USE_NEED_WAKEUP, .sxdp_ifindex = if_nametoindex(dev)};
	umem = mmap(0, (size_t)FRAMES * FRAME, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	reg.addr = (uintptr_t)umem;
	reg.len = (uint64_t)FRAMES * FRAME;
	reg.chunk_size = FRAME;
	if ((sock = socket(AF_XDP, SOCK_RAW | SOCK_CLOEXEC, 0)) < 0 || setsockopt(sock, SOL_XDP, XDP_UMEM_REG, &reg, sizeof reg) ||
	    setsockopt(sock, SOL_XDP, XDP_UMEM_FILL_RING, &n, sizeof n) || setsockopt(sock, SOL_XDP, XDP_UMEM_COMPLETION_RING, &n, sizeof n) ||
	    setsockopt(sock, SOL_XDP, XDP_RX_RING, &n, sizeof n) || setsockopt(sock, SOL_XDP, XDP_TX_RING, &n, sizeof n) ||
	    getsockopt(sock, SOL_XDP, XDP_MMAP_OFFSETS, &off, &len))
		die("set up socket");
	map_ring(&rx, &off.rx, sizeof(struct xdp_desc), XDP_PGOFF_RX_RING);
	map_ring(&tx, &off.tx, sizeof(struct xdp_desc), XDP_PGOFF_TX_RING);
	map_ring(&fill, &off.fr, 8, XDP_UMEM_PGOFF_FILL_RING);
	map_ring(&comp, &off.cr, 8, XDP_UMEM_PGOFF_COMPLETION_RING);
	for (int tries = 0; bind(sock, (struct sockaddr *)&sa, sizeof sa); tries++) { /* the queue's last socket is taken apart later */
		if (errno != EBUSY || tries > 1000)
			die("bind");
		usleep(5000);
	}
}

static int bpf(int cmd, union bpf_attr *a) { return syscall(SYS_bpf, cmd, a, sizeof *a); }

#define INSN(c, d, s, o, i) ((struct bpf_insn){.code = c, .dst_reg = d, .src_reg = s, .off = o, .imm = i})

/* steer attaches: if it is IPv4, UDP and to the port, redirect to the socket, else pass. */
static void steer(const char *dev, int port) {
	union bpf_attr a = {.map_type = BPF_MAP_TYPE_XSKMAP, .key_size = 4, .value_size = 4, .max_entries = 1};
	int key = 0, map = bpf(BPF_MAP_CREATE, &a), prog;
	if (map < 0)
		die("make map");
	struct bpf_insn code[] = {
		INSN(BPF_LDX | BPF_MEM | BPF_W, 2, 1, 0, 0),			  /* r2 = data */
		INSN(BPF_LDX | BPF_MEM | BPF_W, 3, 1, 4, 0),			  /* r3 = data_end */
		INSN(BPF_ALU64 | BPF_MOV | BPF_X, 4, 2, 0, 0),
		INSN(BPF_ALU64 | BPF_ADD | BPF_K, 4, 0, 0, 42),
		INSN(BPF_JMP | BPF_JGT | BPF_X, 4, 3, 12, 0),
		INSN(BPF_LDX | BPF_MEM | BPF_H, 4, 2, 12, 0),
		INSN(BPF_JMP | BPF_JNE | BPF_K, 4, 0, 10, 0x0008),
		INSN(BPF_LDX | BPF_MEM | BPF_B, 4, 2, 23, 0),
		INSN(BPF_JMP | BPF_JNE | BPF_K, 4, 0, 8, 17),
		INSN(BPF_LDX | BPF_MEM | BPF_H, 4, 2, 36, 0),
		INSN(BPF_JMP | BPF_JNE | BPF_K, 4, 0, 6, htons(port)),
		INSN(BPF_LDX | BPF_MEM | BPF_W, 2, 1, 16, 0),			  /* r2 = rx_queue_index */
		INSN(BPF_LD | BPF_DW | BPF_IMM, 1, BPF_PSEUDO_MAP_FD, 0, map),
		INSN(0, 0, 0, 0, 0),
		INSN(BPF_ALU64 | BPF_MOV | BPF_K, 3, 0, 0, XDP_PASS),
		INSN(BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_redirect_map),
		INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0),
		INSN(BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, XDP_PASS),
		INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0),
	};
	memset(&a, 0, sizeof a);
	a.prog_type = BPF_PROG_TYPE_XDP;
	a.insns = (uintptr_t)code;
	a.insn_cnt = sizeof code / sizeof code[0];
	a.license = (uintptr_t) "GPL";
	if ((prog = bpf(BPF_PROG_LOAD, &a)) < 0)
		die("load program");
	memset(&a, 0, sizeof a);
	a.map_fd = map;
	a.key = (uintptr_t)&key;
	a.value = (uintptr_t)&sock;
	if (bpf(BPF_MAP_UPDATE_ELEM, &a))
		die("give queue to socket");
	memset(&a, 0, sizeof a);
	a.link_create.prog_fd = prog;
	a.link_create.target_ifindex = if_nametoindex(dev);
	a.link_create.attach_type = BPF_XDP;
	a.link_create.flags = XDP_FLAGS_SKB_MODE;
	if (bpf(BPF_LINK_CREATE, &a) < 0) /* goes with the process */
		die("attach program");
}

static void start_receiving(void) {
	uint64_t *f = fill.desc;
	for (uint32_t i = 0; i < RING; i++)
		f[fill.own++ & (RING - 1)] = (uint64_t)i * FRAME;
	atomic_store_explicit(fill.producer, fill.own, memory_order_release);
	puts("ready");
	fflush(stdout);
}

/* arrived says how many packets, up to BATCH, there are to be read. */
static uint32_t arrived(void) {
	uint32_t n = atomic_load_explicit(rx.producer, memory_order_acquire) - rx.own;
	return n > BATCH ? BATCH : n;
}

static int input_ended(void) {
	static unsigned spins;
	struct pollfd p = {0, POLLIN, 0};
	return spins++ % 65536 == 0 && poll(&p, 1, 0) > 0;
}

static uint64_t receive(void) {
	uint64_t n = 0;
	uint64_t *f = fill.desc;
	struct xdp_desc *d = rx.desc;
	for (start_receiving();;) {
		uint32_t ready = arrived();
		if (ready == 0) {
			if (input_ended())
				return n;
			continue;
		}
		for (uint32_t i = 0; i < ready; i++)
			f[fill.own++ & (RING - 1)] = d[rx.own++ & (RING - 1)].addr & ~(uint64_t)(FRAME - 1);
		atomic_store_explicit(rx.consumer, rx.own, memory_order_release);
		atomic_store_explicit(fill.producer, fill.own, memory_order_release);
		n += ready;
	}
}

static void kick(void) {
	while (tx.own != atomic_load_explicit(tx.consumer, memory_order_acquire))
		if (sendto(sock, 0, 0, MSG_DONTWAIT, 0, 0) < 0 && errno != EAGAIN) {
			if (errno != EBUSY && errno != ENOBUFS)
				die("send");
			return;
		}
}

static void swap(unsigned char *a, unsigned char *b, int n) {
	unsigned char t[6];
	memcpy(t, a, n);
	memcpy(a, b, n);
	memcpy(b, t, n);
}

/* echo sends back what comes, in the frame that it came in. */
static uint64_t echo(void) {
	uint64_t n = 0, *f = fill.desc, *c = comp.desc;
	struct xdp_desc *d = rx.desc, *out = tx.desc;
	for (start_receiving();;) {
		uint32_t ready = arrived();
		if (ready == 0) {
			if (input_ended())
				return n;
			continue;
		}
		for (uint32_t i = 0; i < ready; i++) {
			struct xdp_desc one = d[rx.own++ & (RING - 1)];
			unsigned char *b = umem + one.addr;
			swap(b, b + 6, 6);
			swap(b + 26, b + 30, 4);
			swap(b + 34, b + 36, 2);
			out[tx.own++ & (RING - 1)] = one;
		}
		atomic_store_explicit(rx.consumer, rx.own, memory_order_release);
		atomic_store_explicit(tx.producer, tx.own, memory_order_release);
		kick();
		for (uint32_t done = atomic_load_explicit(comp.producer, memory_order_acquire) - comp.own; done > 0; done--)
			f[fill.own++ & (RING - 1)] = c[comp.own++ & (RING - 1)] & ~(uint64_t)(FRAME - 1);
		atomic_store_explicit(comp.consumer, comp.own, memory_order_release);
		atomic_store_explicit(fill.producer, fill.own, memory_order_release);
		n += ready;
	}
}

static double *times;
static uint64_t lost;

/* ping measures round trips, in seconds; an answer is lost after one. */
static uint64_t ping(const unsigned char *frame, int size, uint64_t count) {
	uint64_t n = 0, *f = fill.desc;
	struct xdp_desc *d = rx.desc, *out = tx.desc;
	times = calloc(count, sizeof *times);
	start_receiving();
	for (uint64_t seq = 0; seq < count; seq++) {
		uint64_t at = (RING + seq % RING) * FRAME; /* sent, and free again, long since */
		memcpy(umem + at, frame, size);
		memcpy(umem + at + 42, &seq, sizeof seq);
		double begin = now(), took = 0;
		out[tx.own++ & (RING - 1)] = (struct xdp_desc){.addr = at, .len = size};
		atomic_store_explicit(tx.producer, tx.own, memory_order_release);
		kick();
		for (unsigned spins = 1; took == 0; spins++) {
			uint32_t ready = arrived();
			for (uint32_t i = 0; i < ready; i++) {
				struct xdp_desc one = d[rx.own++ & (RING - 1)];
				if (memcmp(umem + one.addr + 42, &seq, sizeof seq) == 0)
					took = now() - begin;
				f[fill.own++ & (RING - 1)] = one.addr & ~(uint64_t)(FRAME - 1);
			}
			if (ready > 0) {
				atomic_store_explicit(rx.consumer, rx.own, memory_order_release);
				atomic_store_explicit(fill.producer, fill.own, memory_order_release);
			} else if (spins % 65536 == 0 && now() - begin > 1) {
				lost++;
				break;
			}
		}
		if (took > 0)
			times[n++] = took;
		comp.own = atomic_load_explicit(comp.producer, memory_order_acquire);
		atomic_store_explicit(comp.consumer, comp.own, memory_order_release);
	}
	return n;
}

static uint64_t transmit(const unsigned char *frame, int size, double seconds) {
	struct xdp_desc *d = tx.desc;
	uint64_t *c = comp.desc, n = 0;
	static uint64_t free_frames[FRAMES];
	uint32_t nfree = 0;
	for (uint64_t i = 0; i < FRAMES; i++) {
		memcpy(umem + i * FRAME, frame, size); /* once: as xdpsock does */
		free_frames[nfree++] = i * FRAME;
	}
	puts("ready");
	fflush(stdout);
	for (double end = now() + seconds; now() < end;) {
		uint32_t done = atomic_load_explicit(comp.producer, memory_order_acquire) - comp.own;
		for (uint32_t i = 0; i < done; i++)
			free_frames[nfree++] = c[comp.own++ & (RING - 1)];
		atomic_store_explicit(comp.consumer, comp.own, memory_order_release);
		uint32_t room = RING - (tx.own - atomic_load_explicit(tx.consumer, memory_order_acquire)), k = 0;
		for (; k < BATCH && k < room && nfree > 0; k++)
			d[tx.own++ & (RING - 1)] = (struct xdp_desc){.addr = free_frames[--nfree], .len = size};
		atomic_store_explicit(tx.producer, tx.own, memory_order_release);
		n += k;
		kick();
	}
	return n;
}

static uint16_t checksum(const unsigned char *b, int n) {
	uint32_t sum = 0;
	for (int i = 0; i < n; i += 2)
		sum += b[i] << 8 | b[i + 1];
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

static void mac(unsigned char *to, const char *s) {
	unsigned v[6];
	if (sscanf(s, "%x:%x:%x:%x:%x:%x", v, v + 1, v + 2, v + 3, v + 4, v + 5) != 6)
		exit(2);
	for (int i = 0; i < 6; i++)
		to[i] = v[i];
}

int main(int argc, char **argv) {
	unsigned char frame[FRAME] = {0};
	if (argc != 11)
		return 2;
	int ns = open(argv[2], O_RDONLY), port = atoi(argv[9]), size = atoi(argv[10]), send = strcmp(argv[1], "tx") == 0;
	int asks = strcmp(argv[1], "ping") == 0, answers = strcmp(argv[1], "echo") == 0;
	if (ns < 0 || setns(ns, CLONE_NEWNET) || size < 60 || size > 1514)
		die("enter network namespace");
	open_socket(argv[3]);
	mac(frame, argv[6]);
	mac(frame + 6, argv[5]);
	unsigned char *ip = frame + 14, *udp = ip + 20;
	uint16_t v;
#define PUT16(at, x) (v = htons(x), memcpy(at, &v, 2))
	PUT16(frame + 12, 0x0800);
	ip[0] = 0x45, ip[8] = 64, ip[9] = 17;
	PUT16(ip + 2, size - 14);
	inet_pton(AF_INET, argv[7], ip + 12);
	inet_pton(AF_INET, argv[8], ip + 16);
	PUT16(ip + 10, checksum(ip, 20));
	PUT16(udp, port);
	PUT16(udp + 2, port);
	PUT16(udp + 4, size - 34); /* without a checksum: there need be none */
	if (!send)
		steer(argv[3], port);
	uint64_t warm = asks ? atoll(argv[4]) / 10 : 0;
	double begin = now();
	uint64_t n = send ? transmit(frame, size, atof(argv[4])) : asks ? ping(frame, size, warm * 11) : answers ? echo() : receive();
	double took = now() - begin;
	struct rusage u;
	getrusage(RUSAGE_SELF, &u);
	double cpu = u.ru_utime.tv_sec + u.ru_stime.tv_sec + (u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
	printf("{\"packets\":%llu,\"cpu\":%.0f,\"took\":%.0f,\"for\":%.0f,\"lost\":%llu,\"times\":[", (unsigned long long)n, cpu * 1e9, took * 1e9,
	       send ? atof(argv[4]) * 1e9 : 0, (unsigned long long)lost);
	for (uint64_t i = warm; asks && i < n; i++)
		printf(i > warm ? ",%.0f" : "%.0f", times[i] * 1e9);
	puts("]}");
	return 0;
}
