package measure

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"
)

// Machine is what stands beside every recorded figure. A figure without its
// machine, Go version and date is a rumour.
type Machine struct {
	CPU    string  `json:"cpu"`
	Cores  int     `json:"cores"`
	MemGiB float64 `json:"mem_gib"`
	OS     string  `json:"os"`
	Go     string  `json:"go"`
	Date   string  `json:"date"` // UTC, YYYY-MM-DD
}

// Here describes this machine, now. What the system does not tell stays empty.
func Here() Machine {
	m := Machine{
		Cores: runtime.NumCPU(),
		OS:    runtime.GOOS + "/" + runtime.GOARCH,
		Go:    runtime.Version(),
		Date:  time.Now().UTC().Format(time.DateOnly),
	}
	m.CPU = field("/proc/cpuinfo", "model name")
	var kb float64
	if _, err := fmt.Sscanf(field("/proc/meminfo", "MemTotal"), "%g kB", &kb); err == nil {
		m.MemGiB = float64(int(kb/(1<<20)*10)) / 10
	}
	return m
}

// String is one line for the head of a table.
func (m Machine) String() string {
	return fmt.Sprintf("%s, %d cores %s, %.0f GiB, %s, %s", m.Date, m.Cores, m.CPU, m.MemGiB, m.OS, m.Go)
}

// field returns the value of the first line "name : value" of a file of /proc.
func field(file, name string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == name {
			return strings.TrimSpace(v)
		}
	}
	return ""
}
