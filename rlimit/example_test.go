package rlimit_test

import (
	"flag"
	"fmt"
	"log"

	"github.com/gopherpack/gopherpack/rlimit"
)

// Make room for many connections.
func ExampleRaise() {
	limit, err := rlimit.Raise(rlimit.NOFILE, 65536)
	if err != nil {
		log.Printf("fewer connections than planned: %v", err)
	}
	log.Printf("open files: %s", limit)
}

// Let the user set a limit with a flag, as in -ulimit nofile=65536:1048576.
func ExampleSetting() {
	var s rlimit.Setting
	flag.TextVar(&s, "ulimit", rlimit.Setting{Resource: rlimit.CORE}, "resource=soft:hard")
	flag.CommandLine.Parse([]string{"-ulimit", "nofile=65536:1048576"})
	fmt.Println(s)
	// Output: nofile=65536:1048576
}
