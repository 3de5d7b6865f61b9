package wire

import (
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
)

// QUICSecretLen is how many bytes the secret of a QUIC endpoint has, from which its keys come.
const QUICSecretLen = 32

// QUICKey returns a key of 32 bytes for a purpose.
func QUICKey(secret []byte, purpose string) (key [32]byte) {
	derived, err := hkdf.Key(sha256.New, secret, nil, "gopherpack QUIC "+purpose, len(key))
	if err != nil {
		panic(err) // it fails only for longer keys
	}
	return [32]byte(derived)
}

// QUICIDKey returns the key of connection IDs.
func QUICIDKey(secret []byte) uint32 {
	key := QUICKey(secret, "connection ID")
	return binary.BigEndian.Uint32(key[:])
}
