/* fathom_shm.h: the other side of package github.com/fathom-trace/fathom/bypass/shm, in C11.
 *
 * Open memory with fathom_shm_open by a path that the other process tells (/proc/PID/fd/N), take a place with
 * fathom_shm_writer or fathom_shm_reader, then send and receive without a system call. Policies are those of the Go package;
 * memory that overwrites can be written and read, too. Functions give 0 or a negative errno; -EAGAIN is "no room" or "no message".
 */
#ifndef FATHOM_SHM_H
#define FATHOM_SHM_H

#ifndef _GNU_SOURCE
#error "define _GNU_SOURCE before any header: locks of open files need it"
#endif
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { FATHOM_SHM_BLOCK, FATHOM_SHM_DROP, FATHOM_SHM_OVERWRITE };
enum { FATHOM_SHM_MAGIC = 0x6d687366, FATHOM_SHM_VERSION = 2, FATHOM_SHM_HEADER = 4096, FATHOM_SHM_PLACES = 64 };

struct fathom_shm_header {
	uint32_t magic, version, writers, readers, slots, slot, policy;
};

struct fathom_shm_line { /* of a writer, and of a reader in each lane */
	_Atomic uint64_t position; /* messages written, or read: in a cache line of its own */
	uint64_t unused1[7];
	_Atomic uint32_t state;    /* of a writer: 0 new, 1 open, 2 closed; of a reader: 1 active */
	_Atomic uint32_t sleeps;   /* 1 while it sleeps, for room or for messages */
	_Atomic uint64_t lost;     /* dropped by a writer, overwritten before a reader */
	uint64_t unused2[6];
};

struct fathom_shm {
	struct fathom_shm_header h;
	unsigned char *mem;
	size_t size;
	int fd;
};

struct fathom_shm_writer { struct fathom_shm *m; uint32_t id; };
struct fathom_shm_reader { struct fathom_shm *m; uint32_t id, next; };

static inline size_t fathom_shm_stride(const struct fathom_shm_header *h) {
	return 16 + (size_t)h->slot > 32 ? (16 + (size_t)h->slot + 63) & ~(size_t)63 : 32;
}
static inline size_t fathom_shm_lane_len(const struct fathom_shm_header *h) {
	return (128 * (1 + (size_t)h->readers) + (size_t)h->slots * fathom_shm_stride(h) + 127) & ~(size_t)127;
}
static inline struct fathom_shm_line *fathom_shm_lane(struct fathom_shm *m, uint32_t i) {
	return (struct fathom_shm_line *)(m->mem + FATHOM_SHM_HEADER + i * fathom_shm_lane_len(&m->h));
}
static inline unsigned char *fathom_shm_slot(struct fathom_shm *m, uint32_t lane, uint64_t n) {
	return (unsigned char *)fathom_shm_lane(m, lane) + 128 * (1 + (size_t)m->h.readers) + (n & (m->h.slots - 1)) * fathom_shm_stride(&m->h);
}

static inline _Atomic uint64_t *fathom_shm_sequence(struct fathom_shm *m, uint32_t lane, uint64_t n) {
	return (_Atomic uint64_t *)fathom_shm_slot(m, lane, n);
}

/* fathom_shm_open opens and maps memory. */
static inline int fathom_shm_open(struct fathom_shm *m, const char *path) {
	struct stat st;
	memset(m, 0, sizeof *m);
	if ((m->fd = open(path, O_RDWR | O_CLOEXEC)) < 0)
		return -errno;
	struct fathom_shm_header *h = &m->h;
	if (fstat(m->fd, &st) == 0 && pread(m->fd, h, sizeof *h, 0) == (ssize_t)sizeof *h && h->magic == FATHOM_SHM_MAGIC &&
	    h->version == FATHOM_SHM_VERSION && h->writers >= 1 && h->writers <= FATHOM_SHM_PLACES && h->readers >= 1 &&
	    h->readers <= FATHOM_SHM_PLACES && h->slots >= 2 && h->slots <= 1 << 20 && (h->slots & (h->slots - 1)) == 0 &&
	    h->slot >= 1 && h->slot <= 1 << 20 && h->policy <= FATHOM_SHM_OVERWRITE) {
		m->size = FATHOM_SHM_HEADER + h->writers * fathom_shm_lane_len(h);
		if ((size_t)st.st_size == m->size) {
			m->mem = mmap(0, m->size, PROT_READ | PROT_WRITE, MAP_SHARED, m->fd, 0);
			if (m->mem != MAP_FAILED)
				return 0;
			int e = errno;
			close(m->fd);
			return -e;
		}
	}
	close(m->fd);
	return -EINVAL;
}

static inline void fathom_shm_close(struct fathom_shm *m) {
	munmap(m->mem, m->size);
	close(m->fd);
}

static inline int fathom_shm_lock(struct fathom_shm *m, uint32_t at, short type) {
	struct flock l = {.l_type = type, .l_whence = SEEK_SET, .l_start = at, .l_len = 1};
	return fcntl(m->fd, F_OFD_SETLK, &l) == 0 ? 0 : -errno;
}

/* fathom_shm_held says if a place is taken by a process that lives: writer i is place i, reader i is 64+i. It does not see what this
 * very struct took. */
static inline int fathom_shm_held(struct fathom_shm *m, uint32_t place) {
	struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = place, .l_len = 1};
	return fcntl(m->fd, F_OFD_GETLK, &l) == 0 && l.l_type != F_UNLCK;
}

static inline void fathom_shm_wake(_Atomic uint32_t *sleeps) {
	if (atomic_load(sleeps)) {
		atomic_store(sleeps, 0);
		syscall(SYS_futex, sleeps, FUTEX_WAKE, INT_MAX, 0, 0, 0);
	}
}

/* fathom_shm_writer takes a place for writing: one writer for each struct fathom_shm. */
static inline int fathom_shm_writer(struct fathom_shm *m, struct fathom_shm_writer *w) {
	for (uint32_t i = 0; i < m->h.writers; i++)
		if (fathom_shm_lock(m, i, F_WRLCK) == 0) {
			struct fathom_shm_line *l = fathom_shm_lane(m, i);
			uint64_t head = atomic_load(&l->position);
			if (atomic_load(fathom_shm_sequence(m, i, head)) == 2 * head + 2) /* of one that died after it */
				atomic_store(&l->position, head + 1);
			*w = (struct fathom_shm_writer){m, i};
			atomic_store(&fathom_shm_lane(m, i)->state, 1);
			return 0;
		}
	return -EBUSY;
}

/* fathom_shm_send sends a message if there is room. */
static inline int fathom_shm_send(struct fathom_shm_writer *w, const void *msg, uint32_t n) {
	struct fathom_shm *m = w->m;
	struct fathom_shm_line *l = fathom_shm_lane(m, w->id);
	uint64_t head = atomic_load_explicit(&l->position, memory_order_relaxed); /* its own */
	if (n > m->h.slot)
		return -EMSGSIZE;
	for (uint32_t i = 0; m->h.policy != FATHOM_SHM_OVERWRITE && i < m->h.readers; i++)
		if ((m->h.readers == 1 || atomic_load(&l[1 + i].state)) && head - atomic_load(&l[1 + i].position) >= m->h.slots) {
			if (m->h.policy == FATHOM_SHM_DROP)
				atomic_store(&l->lost, atomic_load(&l->lost) + 1);
			return -EAGAIN;
		}
	unsigned char *s = fathom_shm_slot(m, w->id, head);
	_Atomic uint64_t *words = (_Atomic uint64_t *)s;
	if (m->h.policy == FATHOM_SHM_OVERWRITE) {
		atomic_store(&words[0], 2 * head + 1);
		atomic_store(&words[1], n);
		for (uint32_t at = 0; at < n; at += 8) {
			uint64_t v = 0;
			memcpy(&v, (const char *)msg + at, n - at < 8 ? n - at : 8);
			atomic_store(&words[2 + at / 8], v);
		}
	} else {
		memcpy(s + 8, &n, 4);
		memcpy(s + 16, msg, n);
	}
	atomic_store(&words[0], 2 * head + 2); /* what a reader waits for */
	atomic_store(&l->position, head + 1);
	for (uint32_t i = 0; i < m->h.readers; i++)
		fathom_shm_wake(&fathom_shm_lane(m, 0)[1 + i].sleeps);
	return 0;
}

/* fathom_shm_writer_close tells readers that no more messages come. */
static inline void fathom_shm_writer_close(struct fathom_shm_writer *w) {
	atomic_store(&fathom_shm_lane(w->m, w->id)->state, 2);
	for (uint32_t i = 0; i < w->m->h.readers; i++)
		fathom_shm_wake(&fathom_shm_lane(w->m, 0)[1 + i].sleeps);
	fathom_shm_lock(w->m, w->id, F_UNLCK);
}

/* fathom_shm_reader takes a place for reading: one reader for each struct fathom_shm. */
static inline int fathom_shm_reader(struct fathom_shm *m, struct fathom_shm_reader *r) {
	for (uint32_t i = 0; i < m->h.readers; i++)
		if (fathom_shm_lock(m, FATHOM_SHM_PLACES + i, F_WRLCK) == 0) {
			*r = (struct fathom_shm_reader){m, i, 0};
			for (uint32_t j = 0; j < m->h.writers; j++) {
				struct fathom_shm_line *l = fathom_shm_lane(m, j);
				if (m->h.readers > 1) {
					atomic_store(&l[1 + i].state, 0);
					atomic_store(&l[1 + i].position, atomic_load(&l->position));
				}
				atomic_store(&l[1 + i].state, 1);
				if (m->h.readers > 1)
					atomic_store(&l[1 + i].position, atomic_load(&l->position));
			}
			return 0;
		}
	return -EBUSY;
}

/* fathom_shm_receive reads a message of at most size bytes, if there is one, and gives its length. */
static inline int fathom_shm_receive(struct fathom_shm_reader *r, void *msg, uint32_t size) {
	struct fathom_shm *m = r->m;
	for (uint32_t tries = 0; tries < m->h.writers; tries++) {
		uint32_t lane = r->next;
		r->next = (r->next + 1) % m->h.writers;
		struct fathom_shm_line *l = fathom_shm_lane(m, lane), *me = &l[1 + r->id];
		uint64_t tail = atomic_load_explicit(&me->position, memory_order_relaxed);
		while (atomic_load(fathom_shm_sequence(m, lane, tail)) > 2 * tail + 1) {
			unsigned char *s = fathom_shm_slot(m, lane, tail);
			uint32_t n;
			if (m->h.policy != FATHOM_SHM_OVERWRITE) {
				memcpy(&n, s + 8, 4);
				if (n > m->h.slot)
					n = m->h.slot;
				if (n > size)
					return -EMSGSIZE;
				memcpy(msg, s + 16, n);
				atomic_store(&me->position, tail + 1);
				fathom_shm_wake(&l->sleeps);
				return (int)n;
			}
			uint64_t head = atomic_load(&l->position);
			if (head > tail + m->h.slots) {
				atomic_store(&me->lost, atomic_load(&me->lost) + (head - tail - m->h.slots));
				tail = head - m->h.slots;
				continue;
			}
			_Atomic uint64_t *words = (_Atomic uint64_t *)s;
			if (atomic_load(&words[0]) == 2 * tail + 2) {
				uint64_t len = atomic_load(&words[1]);
				n = len > m->h.slot ? m->h.slot : (uint32_t)len;
				for (uint32_t at = 0; at < n && n <= size; at += 8) {
					uint64_t v = atomic_load(&words[2 + at / 8]);
					memcpy((char *)msg + at, &v, n - at < 8 ? n - at : 8);
				}
				if (atomic_load(&words[0]) == 2 * tail + 2) {
					if (n > size)
						return -EMSGSIZE;
					atomic_store(&me->position, tail + 1);
					return (int)n;
				}
			}
			atomic_store(&me->lost, atomic_load(&me->lost) + 1);
			tail++;
		}
		atomic_store(&me->position, tail);
	}
	return -EAGAIN;
}

/* fathom_shm_over says if all writers that came have closed (1) or one of them died (-EPIPE). */
static inline int fathom_shm_over(struct fathom_shm_reader *r) {
	int came = 0, dead = 0;
	for (uint32_t i = 0; i < r->m->h.writers; i++) {
		uint32_t s = atomic_load(&fathom_shm_lane(r->m, i)->state);
		if (s == 1 && fathom_shm_held(r->m, i))
			return 0;
		came |= s != 0;
		dead |= s == 1;
	}
	return dead ? -EPIPE : came;
}

static inline void fathom_shm_reader_close(struct fathom_shm_reader *r) {
	for (uint32_t j = 0; j < r->m->h.writers; j++) {
		struct fathom_shm_line *l = fathom_shm_lane(r->m, j);
		atomic_store(&l[1 + r->id].state, 0);
		fathom_shm_wake(&l->sleeps);
	}
	fathom_shm_lock(r->m, FATHOM_SHM_PLACES + r->id, F_UNLCK);
}

#endif
