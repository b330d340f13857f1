// SPDX-License-Identifier: GPL-2.0
/*
 * fathom_late: work that takes too long, where it hurts.
 *
 * echo "KIND NAME MS" > /proc/fathom_late. KIND is irq (hard interrupt), handler (the same, of an interrupt that was asked
 * for: /proc/interrupts has it), tasklet (softirq), twice (a tasklet that is scheduled twice before it can run), work (a work
 * item that keeps its CPU) or sleep (a work item that waits). NAME is flush, refill, reclaim or drain, and is part of the
 * function's name: late_irq_flush, late_handler_flush, late_tasklet_flush …
 */
#include <linux/delay.h>
#include <linux/interrupt.h>
#include <linux/irq.h>
#include <linux/irqdesc.h>
#include <linux/ktime.h>
#include <linux/irq_work.h>
#include <linux/module.h>
#include <linux/proc_fs.h>
#include <linux/uaccess.h>
#include <linux/workqueue.h>

#define LATE_MOST 60000 /* ms */

struct late {
	const char *name;
	unsigned int ms;
	int line; /* an interrupt that no device has: see late_fire */
	irq_handler_t handler;
	struct irq_work irq, fire;
	struct tasklet_struct tasklet;
	struct work_struct work, sleep;
};

/* late_spin keeps the CPU by the clock: loops that are calibrated are off by much on emulated CPUs. */
static noinline void late_spin(unsigned int ms)
{
	ktime_t end = ktime_add_ms(ktime_get(), ms);

	while (ktime_before(ktime_get(), end))
		cpu_relax();
}

#define LATE(NAME)                                                                                                         \
	static noinline void late_irq_##NAME(struct irq_work *w)                                                           \
	{                                                                                                                  \
		late_spin(container_of(w, struct late, irq)->ms);                                                          \
		barrier();                                                                                                 \
	}                                                                                                                  \
	static noinline irqreturn_t late_handler_##NAME(int line, void *l)                                                 \
	{                                                                                                                  \
		late_spin(((struct late *)l)->ms);                                                                         \
		barrier();                                                                                                 \
		return IRQ_HANDLED;                                                                                        \
	}                                                                                                                  \
	static noinline void late_tasklet_##NAME(struct tasklet_struct *t)                                                 \
	{                                                                                                                  \
		late_spin(container_of(t, struct late, tasklet)->ms);                                                      \
		barrier();                                                                                                 \
	}                                                                                                                  \
	static noinline void late_work_##NAME(struct work_struct *w)                                                       \
	{                                                                                                                  \
		late_spin(container_of(w, struct late, work)->ms);                                                         \
		barrier();                                                                                                 \
	}                                                                                                                  \
	static noinline void late_sleep_##NAME(struct work_struct *w)                                                      \
	{                                                                                                                  \
		msleep(container_of(w, struct late, sleep)->ms);                                                           \
		barrier(); /* no jump at the end: it stays on the stack */                                                 \
	}

/* late_fire is in a hard interrupt, as a controller's code would be, and calls the handlers of a line. */
static void late_fire(struct irq_work *w)
{
	generic_handle_irq(container_of(w, struct late, fire)->line);
}

/* late_twice schedules a tasklet twice while softirqs are off: it runs once. */
static noinline void late_twice(struct late *l)
{
	local_bh_disable();
	tasklet_schedule(&l->tasklet);
	tasklet_schedule(&l->tasklet);
	local_bh_enable();
}

/* late_narrow has one item run at a time. */
static struct workqueue_struct *late_narrow;

/* late_crowd queues two items for one CPU: the second waits for the first although there are workers. */
static void late_crowd(struct late *l)
{
	queue_work_on(0, late_narrow, &l->sleep);
	queue_work_on(0, late_narrow, &l->work);
}

LATE(flush)
LATE(refill)
LATE(reclaim)
LATE(drain)

#define LATE_ROW(NAME)                                                                                                     \
	{                                                                                                                  \
		.name = #NAME, .handler = late_handler_##NAME, .fire = IRQ_WORK_INIT_HARD(late_fire), .irq = IRQ_WORK_INIT_HARD(late_irq_##NAME),                                                 \
		.tasklet = { .callback = late_tasklet_##NAME, .use_callback = true },                                      \
		.work = __WORK_INITIALIZER(late_rows[0].work, late_work_##NAME),                                           \
		.sleep = __WORK_INITIALIZER(late_rows[0].sleep, late_sleep_##NAME),                                        \
	}

static struct late late_rows[] = { LATE_ROW(flush), LATE_ROW(refill), LATE_ROW(reclaim), LATE_ROW(drain) };

static int late_begin(struct late *l, const char *kind, unsigned int ms)
{
	l->ms = min_t(unsigned int, ms, LATE_MOST);
	if (!strcmp(kind, "irq"))
		irq_work_queue(&l->irq);
	else if (!strcmp(kind, "handler"))
		irq_work_queue(&l->fire);
	else if (!strcmp(kind, "twice"))
		late_twice(l);
	else if (!strcmp(kind, "tasklet"))
		tasklet_schedule(&l->tasklet);
	else if (!strcmp(kind, "work"))
		schedule_work(&l->work);
	else if (!strcmp(kind, "sleep"))
		schedule_work(&l->sleep);
	else if (!strcmp(kind, "narrow"))
		late_crowd(l);
	else
		return -EINVAL;
	return 0;
}

static ssize_t late_write(struct file *file, const char __user *from, size_t len, loff_t *off)
{
	char text[64] = {}, kind[16], name[16];
	unsigned int ms;
	int i, err;

	if (len >= sizeof(text) || copy_from_user(text, from, len))
		return -EINVAL;
	if (sscanf(text, "%15s %15s %u", kind, name, &ms) != 3)
		return -EINVAL;
	for (i = 0; i < ARRAY_SIZE(late_rows); i++) {
		if (strcmp(name, late_rows[i].name))
			continue;
		err = late_begin(&late_rows[i], kind, ms);
		return err ? err : len;
	}
	return -ENOENT;
}

static const struct proc_ops late_ops = { .proc_write = late_write };

static void late_free_lines(void)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(late_rows); i++) {
		if (late_rows[i].line <= 0)
			continue;
		irq_work_sync(&late_rows[i].fire);
		free_irq(late_rows[i].line, &late_rows[i]);
		irq_free_desc(late_rows[i].line);
		late_rows[i].line = 0;
	}
}

static int __init late_lines(void)
{
	int i, err, line;

	for (i = 0; i < ARRAY_SIZE(late_rows); i++) {
		/* No owner: who asks for a line holds its owner, and we would hold ourselves. */
		line = __irq_alloc_descs(-1, 0, 1, NUMA_NO_NODE, NULL, NULL);
		if (line < 0)
			return line;
		irq_set_chip_and_handler(line, &dummy_irq_chip, handle_simple_irq);
		err = request_irq(line, late_rows[i].handler, IRQF_NO_THREAD, late_rows[i].name, &late_rows[i]);
		if (err) {
			irq_free_desc(line);
			return err;
		}
		late_rows[i].line = line;
	}
	return 0;
}

static int __init late_init(void)
{
	int i, err = late_lines();

	if (err) {
		late_free_lines();
		return err;
	}
	for (i = 0; i < ARRAY_SIZE(late_rows); i++) {
		INIT_WORK(&late_rows[i].work, late_rows[i].work.func);
		INIT_WORK(&late_rows[i].sleep, late_rows[i].sleep.func);
	}
	late_narrow = alloc_workqueue("late_narrow", 0, 1);
	if (late_narrow && proc_create("fathom_late", 0600, NULL, &late_ops))
		return 0;
	if (late_narrow)
		destroy_workqueue(late_narrow);
	late_free_lines();
	return -ENOMEM;
}

static void __exit late_exit(void)
{
	int i;

	remove_proc_entry("fathom_late", NULL);
	late_free_lines();
	for (i = 0; i < ARRAY_SIZE(late_rows); i++) {
		irq_work_sync(&late_rows[i].irq);
		tasklet_kill(&late_rows[i].tasklet);
		cancel_work_sync(&late_rows[i].work);
		cancel_work_sync(&late_rows[i].sleep);
	}
	destroy_workqueue(late_narrow);
}

module_init(late_init);
module_exit(late_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Interrupts, tasklets and work items that take too long on request");
