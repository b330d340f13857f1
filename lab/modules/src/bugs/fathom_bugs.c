// SPDX-License-Identifier: GPL-2.0
/*
 * fathom_bugs: the bugs that kernels die of, on request. Only for machines that may die.
 *
 * echo NAME > /proc/fathom_bugs: null, uaf, deadlock, mixed, flush, gates, spinleak, softlockup, stack, bug, warn.
 */
#include <linux/completion.h>
#include <linux/delay.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/percpu-rwsem.h>
#include <linux/preempt.h>
#include <linux/proc_fs.h>
#include <linux/rtmutex.h>
#include <linux/rwsem.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/uaccess.h>
#include <linux/workqueue.h>

struct bugs_order {
	u64 number;
	struct bugs_customer {
		u64 number;
		char *name;
	} *customer;
};

static DEFINE_MUTEX(bugs_ledger);
static DEFINE_MUTEX(bugs_stock);
static volatile u64 bugs_sink; /* so that reads stay */

/* an order without a customer */
static noinline void bugs_null(void)
{
	struct bugs_order *o = kzalloc(sizeof(*o), GFP_KERNEL);

	if (!o)
		return;
	o->number = 1;
	barrier();
	bugs_sink = (unsigned long)o->customer->name;
	kfree(o);
}

/* an order is read after it was freed: often enough that a sampling detector (KFENCE) sees one */
static noinline void bugs_uaf(void)
{
	int i;

	for (i = 0; i < 20000; i++) {
		struct bugs_order *o = kmalloc(sizeof(*o), GFP_KERNEL);

		if (!o)
			return;
		o->number = i;
		OPTIMIZER_HIDE_VAR(o);
		kfree(o);
		bugs_sink = READ_ONCE(o->number);
		if (i % 100 == 0)
			msleep(1);
	}
}

static int bugs_other(void *arg)
{
	mutex_lock(&bugs_stock);
	msleep(500);
	mutex_lock(&bugs_ledger);
	mutex_unlock(&bugs_ledger);
	mutex_unlock(&bugs_stock);
	return 0;
}

/* two mutexes, taken in two orders */
static noinline void bugs_deadlock(void)
{
	mutex_lock(&bugs_ledger);
	kthread_run(bugs_other, NULL, "fathom_stock");
	msleep(200);
	mutex_lock(&bugs_stock);
	mutex_unlock(&bugs_stock);
	mutex_unlock(&bugs_ledger);
}

static DECLARE_RWSEM(bugs_shelf);
static DEFINE_RT_MUTEX(bugs_till);
static DEFINE_MUTEX(bugs_door);

static int bugs_cashier(void *arg)
{
	rt_mutex_lock(&bugs_till);
	msleep(300);
	mutex_lock(&bugs_door);
	mutex_unlock(&bugs_door);
	rt_mutex_unlock(&bugs_till);
	return 0;
}

static int bugs_porter(void *arg)
{
	mutex_lock(&bugs_door);
	msleep(300);
	down_read(&bugs_shelf);
	up_read(&bugs_shelf);
	mutex_unlock(&bugs_door);
	return 0;
}

/* three locks of three kinds, each held by one who wants the next */
static noinline void bugs_mixed(void)
{
	down_write(&bugs_shelf);
	kthread_run(bugs_cashier, NULL, "fathom_cashier");
	kthread_run(bugs_porter, NULL, "fathom_porter");
	msleep(100);
	rt_mutex_lock(&bugs_till);
	rt_mutex_unlock(&bugs_till);
	up_write(&bugs_shelf);
}

static DEFINE_MUTEX(bugs_books);

static void bugs_audit(struct work_struct *work)
{
	mutex_lock(&bugs_books);
	mutex_unlock(&bugs_books);
}

static DECLARE_WORK(bugs_auditing, bugs_audit);

/* waits for a work that waits for a mutex of the one who waits */
static noinline void bugs_flush(void)
{
	mutex_lock(&bugs_books);
	schedule_work(&bugs_auditing);
	msleep(100);
	flush_work(&bugs_auditing);
	mutex_unlock(&bugs_books);
}

DEFINE_STATIC_PERCPU_RWSEM(bugs_gate);
DEFINE_STATIC_PERCPU_RWSEM(bugs_lane);
static DECLARE_COMPLETION(bugs_parcel);

static int bugs_visitor(void *arg)
{
	percpu_down_read(&bugs_gate);
	percpu_up_read(&bugs_gate);
	return 0;
}

static int bugs_builder(void *arg)
{
	percpu_down_write(&bugs_gate);
	percpu_up_write(&bugs_gate);
	return 0;
}

static int bugs_mover(void *arg)
{
	percpu_down_write(&bugs_lane);
	percpu_up_write(&bugs_lane);
	return 0;
}

/* waits for what nobody completes, and has what others wait for: to read, to write, and until nobody reads */
static noinline void bugs_gates(void)
{
	percpu_down_write(&bugs_gate);
	percpu_down_read(&bugs_lane);
	kthread_run(bugs_visitor, NULL, "fathom_visitor");
	kthread_run(bugs_builder, NULL, "fathom_builder");
	kthread_run(bugs_mover, NULL, "fathom_mover");
	wait_for_completion(&bugs_parcel);
	percpu_up_read(&bugs_lane);
	percpu_up_write(&bugs_gate);
}

static DEFINE_SPINLOCK(bugs_counter);

/* a spinlock that is never given back, and one who wants it */
static noinline void bugs_spinleak(void)
{
	spin_lock(&bugs_counter);
	barrier();
	spin_lock(&bugs_counter);
	bugs_sink++; /* not the end of it: the function stays on the stack */
}

/* a CPU that never schedules again */
static noinline void bugs_softlockup(void)
{
	preempt_disable();
	for (;;)
		cpu_relax();
}

static volatile u64 bugs_enough = U64_MAX; /* depth that is never reached */

static noinline u64 bugs_deeper(u64 depth)
{
	volatile char frame[512];

	if (depth == bugs_enough)
		return 0;
	frame[0] = depth;
	frame[sizeof(frame) - 1] = frame[0];
	return bugs_deeper(depth + 1) + frame[sizeof(frame) - 1];
}

/* a recursion without an end */
static noinline void bugs_stack(void)
{
	bugs_sink = bugs_deeper(0);
}

static noinline void bugs_bug(void)
{
	BUG_ON(!bugs_sink || bugs_sink);
}

static noinline void bugs_warn(void)
{
	WARN(1, "fathom_bugs: %d of %d orders are missing\n", 3, 7);
}

static const struct {
	const char *name;
	void (*plant)(void);
} bugs_table[] = {
	{ "null", bugs_null },
	{ "uaf", bugs_uaf },
	{ "deadlock", bugs_deadlock },
	{ "mixed", bugs_mixed },
	{ "flush", bugs_flush },
	{ "gates", bugs_gates },
	{ "spinleak", bugs_spinleak },
	{ "softlockup", bugs_softlockup },
	{ "stack", bugs_stack },
	{ "bug", bugs_bug },
	{ "warn", bugs_warn },
};

static ssize_t bugs_write(struct file *file, const char __user *from, size_t len, loff_t *off)
{
	char text[32] = {}, *name;
	int i;

	if (len >= sizeof(text) || copy_from_user(text, from, len))
		return -EINVAL;
	name = strim(text);
	for (i = 0; i < ARRAY_SIZE(bugs_table); i++) {
		if (strcmp(name, bugs_table[i].name))
			continue;
		bugs_table[i].plant();
		return len;
	}
	return -ENOENT;
}

static const struct proc_ops bugs_ops = { .proc_write = bugs_write };

static int __init bugs_init(void)
{
	return proc_create("fathom_bugs", 0600, NULL, &bugs_ops) ? 0 : -ENOMEM;
}

static void __exit bugs_exit(void)
{
	remove_proc_entry("fathom_bugs", NULL);
}

module_init(bugs_init);
module_exit(bugs_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Bugs on request");
