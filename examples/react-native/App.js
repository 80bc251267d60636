import { useEffect, useReducer, useRef, useState } from 'react';
import { Button, FlatList, KeyboardAvoidingView, StyleSheet, Text, TextInput, View } from 'react-native';
import { openChat, stateText } from './chat';
import { keychain } from './keychain';

export function App() {
  const [link, setLink] = useState('');
  const [trouble, setTrouble] = useState('');
  const [text, setText] = useState('');
  const [, redraw] = useReducer((count) => count + 1, 0);
  const chat = useRef(null);

  const open = (from) => {
    try {
      chat.current = openChat(from, redraw);
      setTrouble('');
    } catch (error) {
      setTrouble(error.message);
    }
    redraw();
  };

  useEffect(() => {
    // Paired before: no link is needed any more.
    keychain.load().then((kept) => kept && open(null));
    return () => chat.current?.close();
  }, []);

  if (!chat.current) {
    return (
      <View style={styles.page}>
        <Text>Paste the link that your agent shows.</Text>
        <TextInput style={styles.field} value={link} onChangeText={setLink} autoCapitalize="none" autoCorrect={false} secureTextEntry />
        {trouble ? <Text accessibilityRole="alert">{trouble}</Text> : null}
        <Button title="Pair" onPress={() => open(link)} />
      </View>
    );
  }

  const { phone, messages, ask } = chat.current;
  const send = () => {
    if (text.trim()) ask(text);
    setText('');
  };
  return (
    <KeyboardAvoidingView style={styles.page} behavior="padding">
      <Text accessibilityLiveRegion="polite">{stateText(phone.state)}</Text>
      <FlatList
        data={[...messages]}
        renderItem={({ item }) => (
          <View style={styles.message}>
            <Text>{`${item.role === 'me' ? 'You' : 'Agent'}: ${item.text}`}</Text>
            {item.error ? <Text>{item.error}</Text> : null}
            {item.options?.map(({ id, label }) => <Button key={id} title={label} onPress={() => item.reply(id)} />)}
          </View>
        )}
      />
      <TextInput style={styles.field} value={text} onChangeText={setText} onSubmitEditing={send} placeholder="Message" />
      <Button title="Send" onPress={send} />
    </KeyboardAvoidingView>
  );
}

const styles = StyleSheet.create({
  page: { flex: 1, padding: 16, gap: 8, justifyContent: 'flex-end' },
  field: { borderWidth: 1, borderRadius: 8, padding: 8 },
  message: { paddingVertical: 4 },
});
