//go:build linux

// Command clients is the clients of one process, which the measuring program starts on one CPU. See internal/load.
package main

import (
	"log"
	"os"

	"github.com/gopherpack/gopherpack/bench/internal/load"
)

func main() {
	log.SetFlags(0)
	if err := load.Main(os.Stdin, os.Stdout); err != nil {
		log.Fatal("clients: ", err)
	}
}
