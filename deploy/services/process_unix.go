//go:build unix && !linux

package services

import "syscall"

// isolated puts a process into a group of its own. Only Linux can end it with its parent.
func isolated() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
