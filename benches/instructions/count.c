/* A plugin of QEMU's that counts what a guest executes inside one function: `coralmux-instructions` uses it where valgrind
 * counts on x86-64. The argument `function` is a part of the function's symbol. The count goes to standard error once the
 * guest has ended; a function that was entered and not left has none. QEMU reads a guest's symbols only if it is told to
 * log something (-d).
 *
 * Blocks of instructions are counted as a whole. That is exact, because a call starts a block and a return ends one.
 *
 * QEMU ships the header of this interface with its sources only, so what is used of it is declared here.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct qemu_plugin_info;
struct qemu_plugin_insn;
struct qemu_plugin_tb;
typedef uint64_t qemu_plugin_id_t;
enum qemu_plugin_cb_flags { QEMU_PLUGIN_CB_NO_REGS };

void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, void (*)(qemu_plugin_id_t, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *, void (*)(unsigned int, void *),
					  enum qemu_plugin_cb_flags, void *);
void qemu_plugin_register_atexit_cb(qemu_plugin_id_t, void (*)(qemu_plugin_id_t, void *), void *);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
const char *qemu_plugin_insn_symbol(const struct qemu_plugin_insn *);
char *qemu_plugin_insn_disas(const struct qemu_plugin_insn *);

/* Of the interface: 1 for QEMU 7.2 to 8.2, 2 for newer ones. What is used of it is the same in all of them. */
#ifndef PLUGIN_VERSION
#define PLUGIN_VERSION 1
#endif
__attribute__((visibility("default"))) int qemu_plugin_version = PLUGIN_VERSION;

static const char *function;
static bool inside;
static uint64_t count;

/* What is known of a block when it is translated, in the one word that its execution is told. */
enum { IS_PART = 1, RETURNS = 2, COUNT_SHIFT = 2 };

static void execute(unsigned int vcpu, void *word)
{
	uintptr_t block = (uintptr_t)word;

	(void)vcpu;
	if (block & IS_PART)
		inside = true;
	if (inside)
		count += block >> COUNT_SHIFT;
	if (block & RETURNS)
		inside = false;
}

static void translate(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
	size_t instructions = qemu_plugin_tb_n_insns(tb);
	uintptr_t block = (uintptr_t)instructions << COUNT_SHIFT;

	(void)id;
	for (size_t at = 0; at < instructions; at++) {
		struct qemu_plugin_insn *instruction = qemu_plugin_tb_get_insn(tb, at);
		const char *symbol = qemu_plugin_insn_symbol(instruction);

		if (!symbol || !strstr(symbol, function))
			continue;
		block |= IS_PART;
		char *text = qemu_plugin_insn_disas(instruction);
		if (text && strncmp(text, "ret", 3) == 0)
			block |= RETURNS;
		free(text);
	}
	qemu_plugin_register_vcpu_tb_exec_cb(tb, execute, QEMU_PLUGIN_CB_NO_REGS, (void *)block);
}

static void finish(qemu_plugin_id_t id, void *unused)
{
	(void)id;
	(void)unused;
	if (!inside)
		fprintf(stderr, "count Collected : %" PRIu64 "\n", count);
}

__attribute__((visibility("default"))) int qemu_plugin_install(qemu_plugin_id_t id, const struct qemu_plugin_info *info,
							       int argc, char **argv)
{
	static const char key[] = "function=";

	(void)info;
	for (int at = 0; at < argc; at++)
		if (strncmp(argv[at], key, strlen(key)) == 0)
			function = strdup(argv[at] + strlen(key));
	if (!function) {
		fputs("count: which function? function=NAME\n", stderr);
		return -1;
	}
	qemu_plugin_register_vcpu_tb_trans_cb(id, translate);
	qemu_plugin_register_atexit_cb(id, finish, NULL);
	return 0;
}
