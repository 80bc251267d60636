# faye-websocket, on EventMachine.
require 'eventmachine'
require 'faye/websocket'
require 'json'

url, token, *sizes = ARGV
pieces, text, ok = 0, nil, false
EM.run do
  socket = Faye::WebSocket::Client.new(url, [], max_length: 6 << 20)
  say = ->(type, payload) { socket.send({ v: 1, type: type, id: '1', ts: 1, payload: payload }.to_json) }
  ask = lambda do
    next socket.close(1000) if sizes.empty?
    size = sizes.shift.to_i
    pieces = 0
    text = ('abcdefghij' * (size / 10 + 1))[0, size]
    say.call('chat.send', { text: text })
  end
  socket.on(:open) { say.call('auth', { token: token, role: 'phone' }) }
  socket.on(:message) do |event|
    message = JSON.parse(event.data)
    case message['type']
    when 'auth.ok' then ask.call
    when 'chat.stream' then pieces += 1
    else
      raise 'not the same' unless pieces == 3 && message['payload']['full_text'] == text
      ask.call
    end
  end
  socket.on(:close) do |event|
    ok = event.code == 1000 && sizes.empty?
    EM.stop
  end
  EM.add_timer(60) { EM.stop }
end
puts ok ? 'ok' : 'failed'
exit ok
