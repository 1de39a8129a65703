package services

import "syscall"

// isolated puts a process into a group of its own and ends it with its parent.
func isolated() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
