// SPDX-License-Identifier: GPL-2.0
/*
 * fathom_line: a serial port whose bytes the kernel itself sends back, by a line discipline.
 *
 * echo ttyS1 > /proc/fathom_line lets the kernel open that port, as a process would with open(2), and puts the line discipline
 * on it: what comes in is handed to line_receive by the worker that empties the port's buffer (flush_to_ldisc), and no process
 * is woken. Who has the port open keeps the kernel from it, and the other way round. An empty line lets go of the port.
 */
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/proc_fs.h>
#include <linux/seq_file.h>
#include <linux/string.h>
#include <linux/tty.h>
#include <linux/tty_driver.h>
#include <linux/tty_ldisc.h>
#include <linux/uaccess.h>
#include <linux/version.h>

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 6, 0)
typedef u8 line_byte;
typedef u8 line_flag;
typedef size_t line_count;
#else
typedef unsigned char line_byte;
typedef char line_flag;
typedef int line_count;
#endif

static DEFINE_MUTEX(line_lock); /* of line_tty */
static struct tty_struct *line_tty;
static unsigned long line_bytes;

/* line_receive sends back what came in; what the port has no room for is lost, as on a wire. */
static void line_receive(struct tty_struct *tty, const line_byte *data, const line_flag *flags, line_count n)
{
	int sent = tty->ops->write(tty, data, n);

	if (sent > 0)
		line_bytes += sent;
}

/* line_begin says how much line_receive takes at once: without that it is given nothing. */
static int line_begin(struct tty_struct *tty)
{
	tty->receive_room = 65536;
	return 0;
}

static struct tty_ldisc_ops line_ldisc = {
	.owner = THIS_MODULE,
	.num = N_DEVELOPMENT,
	.name = "fathom_line",
	.open = line_begin,
	.receive_buf = line_receive,
};

/* line_release gives the port back; line_lock is held. */
static void line_release(void)
{
	if (!line_tty)
		return;
	tty_ldisc_flush(line_tty);
	tty_lock(line_tty);
	if (line_tty->ops->close)
		line_tty->ops->close(line_tty, NULL);
	tty_unlock(line_tty);
	tty_kclose(line_tty);
	line_tty = NULL;
}

/* line_take opens a port for the kernel; line_lock is held. */
static int line_take(const char *name)
{
	dev_t dev;
	int err = tty_dev_name_to_number(name, &dev);
	struct tty_struct *tty;

	if (err)
		return err;
	tty = tty_kopen_exclusive(dev); /* locked */
	if (IS_ERR(tty))
		return PTR_ERR(tty);
	err = tty->ops->open ? tty->ops->open(tty, NULL) : -ENODEV;
	if (!err)
		clear_bit(TTY_HUPPED, &tty->flags);
	tty_unlock(tty);
	if (err) {
		tty_kclose(tty);
		return err;
	}
	line_tty = tty;
	err = tty_set_ldisc(tty, N_DEVELOPMENT);
	if (err)
		line_release();
	return err;
}

static ssize_t line_write(struct file *f, const char __user *from, size_t n, loff_t *off)
{
	char name[32] = "";
	int err = 0;

	if (n >= sizeof(name))
		return -EINVAL;
	if (copy_from_user(name, from, n))
		return -EFAULT;
	mutex_lock(&line_lock);
	line_release();
	if (*strim(name))
		err = line_take(strim(name));
	mutex_unlock(&line_lock);
	return err ? err : n;
}

static int line_show(struct seq_file *s, void *v)
{
	mutex_lock(&line_lock);
	seq_printf(s, "%s %lu\n", line_tty ? line_tty->name : "-", line_bytes);
	mutex_unlock(&line_lock);
	return 0;
}

static int line_open(struct inode *i, struct file *f)
{
	return single_open(f, line_show, NULL);
}

static const struct proc_ops line_proc = {
	.proc_open = line_open,
	.proc_read = seq_read,
	.proc_write = line_write,
	.proc_lseek = seq_lseek,
	.proc_release = single_release,
};

static int __init line_init(void)
{
	int err = tty_register_ldisc(&line_ldisc);

	if (err)
		return err;
	if (!proc_create("fathom_line", 0600, NULL, &line_proc)) {
		tty_unregister_ldisc(&line_ldisc);
		return -ENOMEM;
	}
	return 0;
}

static void __exit line_exit(void)
{
	remove_proc_entry("fathom_line", NULL);
	mutex_lock(&line_lock);
	line_release();
	mutex_unlock(&line_lock);
	tty_unregister_ldisc(&line_ldisc);
}

module_init(line_init);
module_exit(line_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Serial bytes sent back by a line discipline");
