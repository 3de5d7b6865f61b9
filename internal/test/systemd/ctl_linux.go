package systemd

import (
	"fmt"
	"os/exec"
	"strings"
)

// Ctl calls systemctl(1) in a booted system. The error has what it said.
func Ctl(args ...string) (string, error) { return call("systemctl", args...) }

// Show returns a property of a unit, "" if it cannot be had.
func Show(unit, property string) string {
	out, _ := Ctl("show", "--value", "--property="+property, unit)
	return out
}

// Journal returns what a unit has written so far, and what systemd tells of it.
func Journal(unit string) string {
	call("journalctl", "--sync")
	out, err := call("journalctl", "--output=cat", "--unit="+unit)
	if err != nil {
		return err.Error()
	}
	return out
}

// Warnings returns what a unit's processes have written so far as a warning or worse.
func Warnings(unit string) string {
	call("journalctl", "--sync")
	out, err := call("journalctl", "--quiet", "--output=cat", "--priority=warning", "_SYSTEMD_UNIT="+unit)
	if err != nil {
		return err.Error()
	}
	return out
}

func call(name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(said.String()))
	}
	return strings.TrimSpace(string(out)), err
}
