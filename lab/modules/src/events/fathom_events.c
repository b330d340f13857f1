// SPDX-License-Identifier: GPL-2.0
/*
 * fathom_events: a module with two trace events of its own, fathom_events:fathom_pour and fathom_events:fathom_spill.
 *
 * echo N > /proc/fathom_events pours N cups of 100 to 340 ml; what is over 250 ml is spilled.
 */
#include <linux/module.h>
#include <linux/proc_fs.h>
#include <linux/uaccess.h>

#define CREATE_TRACE_POINTS
#include "fathom_events_trace.h"

#define CUP 250 /* ml */

static void events_pour(int cup)
{
	static const char *const what[] = { "water", "tea", "milk" };
	unsigned int ml = 100 + cup * 40 % 280;

	trace_fathom_pour(cup, ml, what[cup % ARRAY_SIZE(what)]);
	if (ml > CUP)
		trace_fathom_spill(cup, ml - CUP, cup % 2);
}

static ssize_t events_write(struct file *file, const char __user *from, size_t len, loff_t *off)
{
	unsigned int n, i;
	int err = kstrtouint_from_user(from, len, 0, &n);

	if (err)
		return err;
	for (i = 0; i < min(n, 1000000u); i++)
		events_pour(i);
	return len;
}

static const struct proc_ops events_ops = { .proc_write = events_write };

static int __init events_init(void)
{
	return proc_create("fathom_events", 0600, NULL, &events_ops) ? 0 : -ENOMEM;
}

static void __exit events_exit(void)
{
	remove_proc_entry("fathom_events", NULL);
	tracepoint_synchronize_unregister();
}

module_init(events_init);
module_exit(events_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Two trace events");
