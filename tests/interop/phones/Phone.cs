// ClientWebSocket, in Mono, for Xamarin and .NET.
using System;
using System.IO;
using System.Linq;
using System.Net.WebSockets;
using System.Text;
using System.Threading;
using System.Threading.Tasks;

static class Phone {
    static readonly ClientWebSocket socket = new ClientWebSocket();
    static readonly CancellationToken late = new CancellationTokenSource(TimeSpan.FromMinutes(1)).Token;

    static Task Send(string type, string payload) {
        var text = "{\"v\":1,\"type\":\"" + type + "\",\"id\":\"1\",\"ts\":1,\"payload\":" + payload + "}";
        return socket.SendAsync(new ArraySegment<byte>(Encoding.UTF8.GetBytes(text)), WebSocketMessageType.Text, true, late);
    }

    static async Task<string> Next(string part) {
        var whole = new MemoryStream();
        var piece = new byte[65536];
        WebSocketReceiveResult got;
        do {
            got = await socket.ReceiveAsync(new ArraySegment<byte>(piece), late);
            whole.Write(piece, 0, got.Count);
        } while (!got.EndOfMessage);
        var text = Encoding.UTF8.GetString(whole.ToArray());
        if (!text.Contains(part)) throw new Exception("no " + part.Substring(0, Math.Min(60, part.Length)));
        return text;
    }

    static async Task Run(string[] given) {
        await socket.ConnectAsync(new Uri(given[0]), late);
        await Send("auth", "{\"token\":\"" + given[1] + "\",\"role\":\"phone\"}");
        await Next("\"auth.ok\"");
        foreach (var size in given.Skip(2).Select(int.Parse)) {
            var text = string.Concat(Enumerable.Repeat("abcdefghij", size / 10 + 1)).Substring(0, size);
            await Send("chat.send", "{\"text\":\"" + text + "\"}");
            for (var at = 0; at < 3; at++) await Next("\"chat.stream\"");
            await Next("\"full_text\":\"" + text + "\"");
        }
        await socket.CloseAsync(WebSocketCloseStatus.NormalClosure, "", late);
        if (socket.CloseStatus != WebSocketCloseStatus.NormalClosure) throw new Exception("closed otherwise");
        Console.WriteLine("ok");
    }

    static void Main(string[] given) { Run(given).Wait(); }
}
