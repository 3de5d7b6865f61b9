package rlimit_test

import (
	"flag"
	"fmt"
	"log"
	"os/exec"

	"github.com/gopherpack/gopherpack/rlimit"
)

// Make room for many connections.
func ExampleRaise() {
	limit, err := rlimit.Raise(rlimit.NOFILE, 65536)
	if err != nil {
		log.Fatal(err)
	}
	log.Printf("open files: %s", limit)
}

// Make do with less, and say so.
func ExampleRaiseUpTo() {
	const want = 1 << 20
	limit, err := rlimit.RaiseUpTo(rlimit.NOFILE, want)
	if err != nil {
		log.Fatal(err)
	}
	if limit.Soft < want {
		log.Printf("fewer connections than planned: %d open files", limit.Soft)
	}
}

// Keep a child from writing large files.
func ExampleSetOf() {
	cmd := exec.Command("gzip", "-k", "huge")
	if err := cmd.Start(); err != nil {
		log.Fatal(err)
	}
	if err := rlimit.SetOf(cmd.Process.Pid, rlimit.FSIZE, rlimit.Limit{Soft: 1 << 30, Hard: 1 << 30}); err != nil {
		log.Print(err)
	}
	cmd.Wait()
}

// Let the user set a limit with a flag, as in -ulimit nofile=65536:1048576.
func ExampleSetting() {
	var s rlimit.Setting
	flag.TextVar(&s, "ulimit", rlimit.Setting{Resource: rlimit.CORE}, "resource=soft:hard")
	flag.CommandLine.Parse([]string{"-ulimit", "nofile=65536:1048576"})
	fmt.Println(s)
	// Output: nofile=65536:1048576
}

// Read a limit as docker, systemd and ulimit spell it.
func ExampleLimit_UnmarshalText() {
	for _, text := range []string{"1024:4096", "64k", "0:infinity", "unlimited", "-1"} {
		var l rlimit.Limit
		if err := l.UnmarshalText([]byte(text)); err != nil {
			log.Fatal(err)
		}
		fmt.Println(l)
	}
	// Output:
	// 1024:4096
	// 65536:65536
	// 0:unlimited
	// unlimited:unlimited
	// unlimited:unlimited
}
