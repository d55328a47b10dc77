package soleuser

import "golang.org/x/sys/unix"

const arch = unix.AUDIT_ARCH_AARCH64

// calls are complete for ids of 32 bits; setfsuid(2) and setfsgid(2) never fail.
var calls = []call{
	{unix.SYS_SETGROUPS, nil},
	{unix.SYS_SETUID, []uint32{0}}, {unix.SYS_SETGID, []uint32{0}},
	{unix.SYS_SETREUID, []uint32{0, 1}}, {unix.SYS_SETREGID, []uint32{0, 1}},
	{unix.SYS_SETRESUID, []uint32{0, 1, 2}}, {unix.SYS_SETRESGID, []uint32{0, 1, 2}},
	{unix.SYS_FCHOWN, []uint32{1, 2}}, {unix.SYS_FCHOWNAT, []uint32{2, 3}},
}
