// SPDX-License-Identifier: GPL-2.0
/*
 * fathom_bugs: the bugs that kernels die of, on request. Only for machines that may die.
 *
 * echo NAME > /proc/fathom_bugs: null, uaf, deadlock, softlockup, stack, bug, warn.
 */
#include <linux/delay.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/preempt.h>
#include <linux/proc_fs.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

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
