/* Linked into the static programs: a name is looked up in /etc/hosts, then by DNS, whatever /etc/nsswitch.conf says. The
 * modules that it may name belong to the C library of the distribution, and loading one into a program that brings a C
 * library of its own ends in a crash.
 */
#include <nss.h>

__attribute__((constructor)) static void look_up_without_modules(void)
{
	__nss_configure_lookup("hosts", "files dns");
}
