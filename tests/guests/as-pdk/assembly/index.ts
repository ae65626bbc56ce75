// A plug-in made with the AssemblyScript PDK, for the side-by-side test: one
// export for each part of the PDK. tests/fetch/as-pdk.sh builds it.
import { Config, Host, LogLevel, Memory, Var } from '@extism/as-pdk';

@external('extism:host/user', 'shout')
declare function shout(text: u64): u64;

function myAbort(message: string | null, file: string | null, line: u32, column: u32): void {}

export function count_vowels(): i32 {
  const text = Host.inputString();
  let count = 0;
  for (let i = 0; i < text.length; i++) {
    if ('aeiouAEIOU'.includes(text.charAt(i))) count++;
  }
  Host.outputString('{"count":' + count.toString() + '}');
  return 0;
}

export function echo(): i32 {
  Host.output(Host.input());
  return 0;
}

// Counts its calls in a variable; the input `forget` removes it.
export function remember(): i32 {
  if (Host.inputString() == 'forget') {
    Var.remove('calls');
    Host.outputString('forgotten');
    return 0;
  }
  const before = Var.getString('calls');
  const calls = (before === null ? 0 : I32.parseInt(before)) + 1;
  Var.set('calls', Uint8Array.wrap(String.UTF8.encode(calls.toString())));
  Host.outputString(calls.toString());
  return 0;
}

export function configured(): i32 {
  const value = Config.get(Host.inputString());
  Host.outputString(value === null ? '(none)' : value);
  return 0;
}

export function ask_host(): i32 {
  const question = Memory.allocateString(Host.inputString());
  const answer = shout(question.offset);
  Host.outputMemory(new Memory(answer, question.length));
  return 0;
}

export function logs(): i32 {
  const text = Host.inputString();
  Host.log(LogLevel.Debug, text + ' debug');
  Host.log(LogLevel.Info, text + ' info');
  Host.log(LogLevel.Warn, text + ' warn');
  Host.log(LogLevel.Error, text + ' error');
  return 0;
}

// Ends in a trap, with output set before.
export function aborts(): i32 {
  Host.outputString('before');
  const none: i32[] = [];
  return none[1];
}
