// Package helloworld is the interface of the greeter.
package helloworld

// With protoc, protoc-gen-go v1.36.12 and protoc-gen-go-grpc v1.6.2 on the PATH.
//go:generate protoc --go_out=. --go_opt=paths=source_relative --go-grpc_out=. --go-grpc_opt=paths=source_relative helloworld.proto
