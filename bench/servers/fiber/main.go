// Command fiber is Fiber with its prefork.
package main

import (
	"flag"
	"log"

	"github.com/gofiber/fiber/v3"

	"github.com/gopherpack/gopherpack/bench/internal/answers"
)

func main() {
	address := flag.String("addr", "127.0.0.1:8080", "address to listen on")
	flag.Parse()
	app := fiber.New()
	app.Get("/*", func(c fiber.Ctx) error {
		body, ok := answers.Body(c.Path())
		if !ok {
			return c.SendStatus(fiber.StatusNotFound)
		}
		c.Set(fiber.HeaderContentType, answers.ContentType)
		return c.Send(body)
	})
	if err := app.Listen(*address, fiber.ListenConfig{EnablePrefork: true, DisableStartupMessage: true}); err != nil {
		log.Fatal("fiber: ", err)
	}
}
