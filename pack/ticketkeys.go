package pack

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
)

// ticketKeysIn has the keys in a file used.
func ticketKeysIn(path string) *watchedFiles {
	var count int
	return &watchedFiles{
		what: "keys of session tickets", paths: []string{path},
		take: func(contents [][]byte) error {
			keys, err := parseTicketKeys(contents[0])
			if err == nil {
				count = len(keys)
				tickets.Fix(keys)
			}
			return err
		},
		about: func() []any { return []any{"keys", count} },
	}
}

const (
	minTicketKey, maxTicketKey = 32, 80 // bytes
	maxTicketKeys              = 16     // each is tried with a ticket that is of none
)

// parseTicketKeys reads what Config.TicketKeys tells of. An error has nothing of a key.
func parseTicketKeys(text []byte) (keys [][]byte, err error) {
	number := 0
	for line := range bytes.Lines(text) {
		number++
		if line = bytes.TrimSpace(line); len(line) == 0 || line[0] == '#' {
			continue
		}
		key, err := base64.StdEncoding.DecodeString(string(line))
		if err != nil {
			return nil, fmt.Errorf("line %d is no key in base64: make one with openssl rand -base64 48", number)
		}
		if n := len(key); n < minTicketKey || n > maxTicketKey {
			return nil, fmt.Errorf("the key of line %d has %d bytes: %d to %d, make one with openssl rand -base64 48",
				number, n, minTicketKey, maxTicketKey)
		}
		keys = append(keys, key)
	}
	switch {
	case len(keys) == 0:
		return nil, errors.New("there is no key: make one with openssl rand -base64 48")
	case len(keys) > maxTicketKeys:
		return nil, fmt.Errorf("%d keys: at most %d, remove the oldest", len(keys), maxTicketKeys)
	}
	return keys, nil
}
