// Package answers is what all servers of this module answer, so that each has the same work to do. It links neither
// net/http nor any peer.
package answers

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"time"
)

// ContentType is that of every answer.
const ContentType = "text/plain; charset=utf-8"

// The bodies that do not change.
var (
	Hello    = []byte("hello\n")
	Kilobyte = bytes.Repeat([]byte("0123456789abcde\n"), 1<<10/16)
	Burnt    = []byte("burnt\n")
)

// Megabyte returns another body, which is made when it is first asked for: until then no process has it in memory.
var Megabyte = sync.OnceValue(func() []byte { return bytes.Repeat(Kilobyte, 1<<10) })

// PID is the process that answers, always of the same length.
var PID = fmt.Appendf(nil, "%010d\n", os.Getpid())

// Body returns the answer to a request for a path, and whether there is one. The answers are the same each time, but
// for /pid.
func Body(path string) ([]byte, bool) {
	switch path {
	case "/hello":
		return Hello, true
	case "/1k":
		return Kilobyte, true
	case "/1m":
		return Megabyte(), true
	case "/json":
		return JSON(), true
	case "/pid":
		return PID, true
	case "/burn":
		Burn()
		return Burnt, true
	}
	return nil, false
}

// BurnFor is in the environment of a server, and says for how long Burn computes.
const BurnFor = "BENCH_BURN"

// Burn computes, and waits for nothing.
func Burn() {
	d, err := time.ParseDuration(os.Getenv(BurnFor))
	if err != nil {
		panic(BurnFor + ": " + err.Error())
	}
	for end := time.Now().Add(d); time.Now().Before(end); {
	}
}

// item is part of a document such as many services read and write.
type item struct {
	ID    int               `json:"id"`
	Name  string            `json:"name"`
	Count int               `json:"count"`
	Price float64           `json:"price"`
	Total float64           `json:"total"`
	Tags  map[string]string `json:"tags"`
}

// document has about 2 KB.
var document = func() []byte {
	var items []item
	for i := range 20 {
		tags := map[string]string{"color": "green", "size": "small"}
		items = append(items, item{ID: i, Name: "something for sale", Count: i, Price: 1.5, Tags: tags})
	}
	return encode(items)
}()

// JSON decodes the document, and encodes another, which takes some hundred allocations.
func JSON() []byte {
	var items []item
	if err := json.Unmarshal(document, &items); err != nil {
		panic(err)
	}
	for i := range items {
		items[i].Total = float64(items[i].Count) * items[i].Price
	}
	return encode(items)
}

func encode(items []item) []byte {
	text, err := json.Marshal(items)
	if err != nil {
		panic(err)
	}
	return text
}
