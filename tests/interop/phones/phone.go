// gorilla/websocket, for gomobile.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/gorilla/websocket"
)

type message struct {
	Type    string            `json:"type"`
	Payload map[string]any    `json:"payload"`
}

func check(err error) {
	if err != nil {
		fmt.Println("failed:", err)
		os.Exit(1)
	}
}

func main() {
	socket, _, err := websocket.DefaultDialer.Dial(os.Args[1], nil)
	check(err)
	check(socket.SetReadDeadline(time.Now().Add(time.Minute)))
	send := func(kind string, payload map[string]any) {
		check(socket.WriteJSON(map[string]any{"v": 1, "type": kind, "id": "1", "ts": 1, "payload": payload}))
	}
	next := func(kind string) map[string]any {
		_, text, err := socket.ReadMessage()
		check(err)
		var one message
		check(json.Unmarshal(text, &one))
		if one.Type != kind {
			check(fmt.Errorf("%s in place of %s", one.Type, kind))
		}
		return one.Payload
	}
	send("auth", map[string]any{"token": os.Args[2], "role": "phone"})
	next("auth.ok")
	for _, given := range os.Args[3:] {
		size, err := strconv.Atoi(given)
		check(err)
		text := strings.Repeat("abcdefghij", size/10+1)[:size]
		send("chat.send", map[string]any{"text": text})
		for piece := 0; piece < 3; piece++ {
			next("chat.stream")
		}
		if next("chat.done")["full_text"] != text {
			check(fmt.Errorf("not the same text"))
		}
	}
	check(socket.WriteMessage(websocket.CloseMessage, websocket.FormatCloseMessage(1000, "")))
	_, _, err = socket.ReadMessage()
	if !websocket.IsCloseError(err, 1000) {
		check(fmt.Errorf("closed otherwise: %v", err))
	}
	fmt.Println("ok")
}
