//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// userHZ is the unit of times in /proc on every architecture that Go runs on.
const userHZ = 100

// cpuTime is the processor time that a process has used so far, user and system.
func cpuTime(pid int) (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	return parseStat(b)
}

// parseStat finds utime and stime in /proc/PID/stat, see proc(5). The name of the
// program, second, may hold spaces and parentheses.
func parseStat(b []byte) (time.Duration, error) {
	_, rest, ok := bytes.Cut(b[bytes.LastIndexByte(b, ')')+1:], []byte{' '})
	f := strings.Fields(string(rest))
	if !ok || len(f) < 13 {
		return 0, errors.New("/proc/PID/stat is cut short")
	}
	user, err1 := strconv.ParseInt(f[11], 10, 64)
	system, err2 := strconv.ParseInt(f[12], 10, 64)
	if err := errors.Join(err1, err2); err != nil {
		return 0, err
	}
	return time.Duration(user+system) * time.Second / userHZ, nil
}

// memory is what a process has in RAM, in MiB.
type memory struct {
	now  float64 // VmRSS
	peak float64 // VmHWM, the most in its life
}

func memoryOf(pid int) (memory, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return memory{}, err
	}
	return parseStatus(b)
}

// parseStatus finds memory in /proc/PID/status.
func parseStatus(b []byte) (m memory, err error) {
	found := 0
	for line := range strings.Lines(string(b)) {
		name, value, _ := strings.Cut(line, ":")
		var to *float64
		switch name {
		case "VmRSS":
			to = &m.now
		case "VmHWM":
			to = &m.peak
		default:
			continue
		}
		kb, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 64)
		if err != nil {
			return memory{}, fmt.Errorf("%s: %w", name, err)
		}
		*to = kb / 1024
		found++
	}
	if found != 2 {
		return memory{}, errors.New("/proc/PID/status lacks VmRSS or VmHWM")
	}
	return m, nil
}

// watchMemory samples a process every 50 ms until the function that it returns is
// called, which returns the most that the process had in RAM at once, in MiB.
func watchMemory(ctx context.Context, pid int) func() float64 {
	ctx, cancel := context.WithCancel(ctx)
	most := make(chan float64, 1)
	go func() {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		var top float64
		for {
			if m, err := memoryOf(pid); err == nil {
				top = max(top, m.now)
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				most <- top
				return
			}
		}
	}()
	return sync.OnceValue(func() float64 { cancel(); return <-most })
}

// settle waits until the machine has little to do, at most 20 s: on a shared one that may be
// never.
func settle(ctx context.Context) error {
	const look, enough = 500 * time.Millisecond, 0.85
	idle, all, err := machineTime()
	if err != nil {
		return err
	}
	for range 40 {
		select {
		case <-time.After(look):
		case <-ctx.Done():
			return ctx.Err()
		}
		i, a, err := machineTime()
		if err != nil {
			return err
		}
		if float64(i-idle) >= enough*float64(a-all) {
			return nil
		}
		idle, all = i, a
	}
	return nil
}

// second is a part of a measurement, and the share of the machine, 0 to 1, that processes
// other than ours had meanwhile.
type second struct {
	from, to time.Time
	others   float64
}

// quietShare is how much others may have of a second that counts as quiet.
const quietShare = 0.1

// watchOthers looks every second until the function that it returns is called, which returns
// the seconds that have passed.
func watchOthers() func() ([]second, error) {
	stop := make(chan struct{})
	type result struct {
		seconds []second
		err     error
	}
	ended := make(chan result, 1)
	go func() {
		var r result
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		from := time.Now()
		idle, all, ours, err := machineAndFamily()
		for r.err = err; ; {
			select {
			case <-tick.C:
			case <-stop:
				ended <- r
				return
			}
			i, a, o, err := machineAndFamily()
			if r.err = errors.Join(r.err, err); r.err == nil {
				now := time.Now()
				used := float64(a-all) - float64(i-idle)
				share := (used - (o-ours).Seconds()*userHZ) / float64(a-all)
				r.seconds = append(r.seconds, second{from, now, max(0, share)})
				from = now
			}
			idle, all, ours = i, a, o
		}
	}()
	return func() ([]second, error) {
		close(stop)
		r := <-ended
		return r.seconds, r.err
	}
}

func machineAndFamily() (idle, all int64, ours time.Duration, err error) {
	if ours, err = familyTime(); err == nil {
		idle, all, err = machineTime()
	}
	return idle, all, ours, err
}

// familyTime is the processor time of this process and of its children that live.
func familyTime() (sum time.Duration, err error) {
	dirs, err := os.ReadDir("/proc")
	if err != nil {
		return 0, err
	}
	self := os.Getpid()
	for _, d := range dirs {
		pid, err := strconv.Atoi(d.Name())
		if err != nil {
			continue
		}
		b, err := os.ReadFile("/proc/" + d.Name() + "/stat")
		if err != nil {
			continue // it has ended
		}
		_, rest, _ := bytes.Cut(b[bytes.LastIndexByte(b, ')')+1:], []byte{' '})
		f := strings.Fields(string(rest))
		if pid != self && (len(f) < 2 || f[1] != strconv.Itoa(self)) {
			continue
		}
		t, err := parseStat(b)
		if err != nil {
			return 0, err
		}
		sum += t
	}
	return sum, nil
}

// machineTime is the time of all processors since the start, and how much of it was idle.
func machineTime() (idle, all int64, err error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0, err
	}
	return parseMachine(b)
}

// parseMachine reads the first line of /proc/stat, see proc(5).
func parseMachine(b []byte) (idle, all int64, err error) {
	line, _, _ := strings.Cut(string(b), "\n")
	f := strings.Fields(line)
	if len(f) < 6 || f[0] != "cpu" {
		return 0, 0, errors.New("/proc/stat does not begin with the time of all processors")
	}
	for i, text := range f[1:] {
		v, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return 0, 0, fmt.Errorf("/proc/stat: %w", err)
		}
		if all += v; i == 3 || i == 4 { // idle and iowait
			idle += v
		}
	}
	return idle, all, nil
}
