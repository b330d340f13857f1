// SPDX-License-Identifier: GPL-2.0
/*
 * fathom_echo: a character device that gives back what is written to it.
 *
 * /dev/fathom_echo. Every open file has a buffer of its own; a reader waits while it is empty, a writer while it is full.
 * To see: open, read, write and poll reach the functions of file_operations; a trace names them.
 */
#include <linux/fs.h>
#include <linux/kfifo.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/poll.h>
#include <linux/slab.h>
#include <linux/wait.h>

#define ECHO_SIZE 4096

struct echo {
	struct mutex lock; /* of fifo */
	wait_queue_head_t wait;
	DECLARE_KFIFO(fifo, char, ECHO_SIZE);
};

static int echo_open(struct inode *inode, struct file *file)
{
	struct echo *e = kzalloc(sizeof(*e), GFP_KERNEL);

	if (!e)
		return -ENOMEM;
	mutex_init(&e->lock);
	init_waitqueue_head(&e->wait);
	INIT_KFIFO(e->fifo);
	file->private_data = e;
	return 0;
}

static int echo_release(struct inode *inode, struct file *file)
{
	kfree(file->private_data);
	return 0;
}

static ssize_t echo_read(struct file *file, char __user *to, size_t len, loff_t *off)
{
	struct echo *e = file->private_data;
	unsigned int copied = 0;
	int err;

	if (!len)
		return 0;
	for (;;) {
		if (mutex_lock_interruptible(&e->lock))
			return -ERESTARTSYS;
		err = kfifo_to_user(&e->fifo, to, len, &copied);
		mutex_unlock(&e->lock);
		if (err || copied)
			break;
		if (file->f_flags & O_NONBLOCK)
			return -EAGAIN;
		if (wait_event_interruptible(e->wait, !kfifo_is_empty(&e->fifo)))
			return -ERESTARTSYS;
	}
	wake_up_interruptible(&e->wait);
	return err ? err : copied;
}

static ssize_t echo_write(struct file *file, const char __user *from, size_t len, loff_t *off)
{
	struct echo *e = file->private_data;
	unsigned int copied = 0;
	int err;

	if (!len)
		return 0;
	for (;;) {
		if (mutex_lock_interruptible(&e->lock))
			return -ERESTARTSYS;
		err = kfifo_from_user(&e->fifo, from, len, &copied);
		mutex_unlock(&e->lock);
		if (err || copied)
			break;
		if (file->f_flags & O_NONBLOCK)
			return -EAGAIN;
		if (wait_event_interruptible(e->wait, !kfifo_is_full(&e->fifo)))
			return -ERESTARTSYS;
	}
	wake_up_interruptible(&e->wait);
	return err ? err : copied;
}

static __poll_t echo_poll(struct file *file, poll_table *table)
{
	struct echo *e = file->private_data;
	__poll_t mask = 0;

	poll_wait(file, &e->wait, table);
	if (!kfifo_is_empty(&e->fifo))
		mask |= EPOLLIN | EPOLLRDNORM;
	if (!kfifo_is_full(&e->fifo))
		mask |= EPOLLOUT | EPOLLWRNORM;
	return mask;
}

static const struct file_operations echo_fops = {
	.owner = THIS_MODULE,
	.open = echo_open,
	.release = echo_release,
	.read = echo_read,
	.write = echo_write,
	.poll = echo_poll,
};

static struct miscdevice echo_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "fathom_echo",
	.fops = &echo_fops,
	.mode = 0666,
};

module_misc_device(echo_device);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("A character device that echoes");
