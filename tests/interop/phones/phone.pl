# Mojolicious.
use Mojo::Base -strict, -signatures;
use Mojo::UserAgent;
use Mojo::JSON qw(decode_json encode_json);

my ($url, $token, @sizes) = @ARGV;
my ($ua, $pieces, $ok, $text) = (Mojo::UserAgent->new, 0, 0);
$ua->inactivity_timeout(60);
sub message ($type, $payload) { encode_json {v => 1, type => $type, id => '1', ts => 1, payload => $payload} }
$ua->websocket($url => sub ($agent, $tx) {
  die 'no upgrade' unless $tx->is_websocket;
  $tx->max_websocket_size(6 << 20);    # 256 KiB otherwise
  my $ask = sub {
    return $tx->finish(1000) unless @sizes;
    my $size = shift @sizes;
    $pieces = 0;
    $text = substr 'abcdefghij' x ($size / 10 + 1), 0, $size;
    $tx->send(message('chat.send', {text => $text}));
  };
  $tx->on(text => sub ($tx, $data) {
    my $message = decode_json $data;
    return $ask->() if $message->{type} eq 'auth.ok';
    return $pieces++ if $message->{type} eq 'chat.stream';
    die 'not the same' unless $pieces == 3 && $message->{payload}{full_text} eq $text;
    $ask->();
  });
  $tx->on(finish => sub ($tx, $code, $reason) { $ok = $code == 1000 && !@sizes; Mojo::IOLoop->stop });
  $tx->send(message('auth', {token => $token, role => 'phone'}));
});
Mojo::IOLoop->timer(60 => sub { Mojo::IOLoop->stop });
Mojo::IOLoop->start;
print $ok ? "ok\n" : "failed\n";
exit !$ok;
