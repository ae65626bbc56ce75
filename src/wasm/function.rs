//! Host functions that the user of the library offers, and the one point where guests call them.

use std::any::Any;
use std::mem::MaybeUninit;
use std::sync::Arc;

use wasmtime::{Caller, Engine, FuncType, Linker, ValRaw, ValType};

use super::ctx::{Access, Ctx};

/// The numeric types that host functions can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum NumberType {
    I32 = 0,
    I64 = 1,
    F32 = 2,
    F64 = 3,
}

impl NumberType {
    fn wasm(self) -> ValType {
        match self {
            Self::I32 => ValType::I32,
            Self::I64 => ValType::I64,
            Self::F32 => ValType::F32,
            Self::F64 => ValType::F64,
        }
    }
}

/// An argument or result of a host function: its type's number, and its bits in the low bytes.
/// The C ABI's `ExtismVal` has this layout (pinned in `ffi`).
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct Number {
    pub kind: u32,
    pub bits: u64,
}

/// What a host function does: called with the handle of the current plug-in, the arguments and the results (zero
/// when it begins). It runs on the thread that made the call.
pub(crate) type Callback = Box<dyn Fn(u64, &mut [Number], &mut [Number]) + Send + Sync>;

/// A function that a host offers to plug-ins.
pub(crate) struct UserFunction {
    pub name: String,
    pub code: Arc<UserCode>,
    /// What the callback needs, dropped with the last user. It is apart from the code, which linkers share: in the
    /// child of a fork those of the parent are never freed.
    pub _data: Box<dyn Any + Send + Sync>,
}

/// What runs when a guest calls a host function. It is called only while a [`Program`](super::Program) that was made
/// with the function lives.
pub(crate) struct UserCode {
    pub params: Vec<NumberType>,
    pub results: Vec<NumberType>,
    pub callback: Callback,
}

/// A host function at its place: the namespace that guests import it from.
#[derive(Clone)]
pub(crate) struct Offer {
    pub namespace: String,
    pub function: Arc<UserFunction>,
}

/// How many arguments or results stay on the stack; more than that go to the heap.
const ON_STACK: usize = 8;

/// Defines a host function for guests, in place of one of the same name that was defined before.
pub(super) fn define(linker: &mut Linker<Ctx>, engine: &Engine, offer: &Offer) -> wasmtime::Result<()> {
    let code = Arc::clone(&offer.function.code);
    let ty = FuncType::new(engine, code.params.iter().map(|ty| ty.wasm()), code.results.iter().map(|ty| ty.wasm()));
    let call = move |caller: Caller<'_, Ctx>, values: &mut [MaybeUninit<ValRaw>]| dispatch(&code, caller, values);
    // SAFETY: `dispatch` reads as many arguments of the types as `ty` has, and writes as many results, both taken
    // from the same `UserCode` as `ty`; the types are numbers, so no value outlives a collector's root.
    unsafe { linker.func_new_unchecked(&offer.namespace, &offer.function.name, ty, call)? };
    Ok(())
}

/// The dispatch point: every call of a guest to a function of the user passes here.
fn dispatch(
    code: &UserCode,
    mut caller: Caller<'_, Ctx>,
    values: &mut [MaybeUninit<ValRaw>],
) -> wasmtime::Result<()> {
    const ZERO: Number = Number { kind: 0, bits: 0 };
    let (params, results) = (&*code.params, &*code.results);
    let count = params.len() + results.len();
    let mut stack = [ZERO; ON_STACK];
    let mut heap = Vec::new();
    let numbers = match stack.get_mut(..count) {
        Some(numbers) => numbers,
        None => {
            heap.resize(count, ZERO);
            &mut heap[..]
        }
    };
    let (inputs, outputs) = numbers.split_at_mut(params.len());
    for ((input, ty), value) in inputs.iter_mut().zip(params).zip(&*values) {
        // SAFETY: wasmtime initialises as many values as the function has parameters, which `params` was made of.
        let value = unsafe { value.assume_init_ref() };
        *input = Number { kind: *ty as u32, bits: bits_of(value, *ty) };
    }
    for (output, ty) in outputs.iter_mut().zip(results) {
        output.kind = *ty as u32;
    }

    let mut access = Access::new(&mut caller);
    access.begin_callback();
    access.lend(|current| (code.callback)(current, inputs, outputs));

    // A callback may have overwritten the types; the declared ones count.
    for ((output, ty), value) in outputs.iter().zip(results).zip(values) {
        value.write(raw_of(output.bits, *ty));
    }
    Ok(())
}

fn bits_of(value: &ValRaw, ty: NumberType) -> u64 {
    match ty {
        NumberType::I32 => u64::from(value.get_u32()),
        NumberType::I64 => value.get_u64(),
        NumberType::F32 => u64::from(value.get_f32()),
        NumberType::F64 => value.get_f64(),
    }
}

fn raw_of(bits: u64, ty: NumberType) -> ValRaw {
    match ty {
        NumberType::I32 => ValRaw::u32(bits as u32),
        NumberType::I64 => ValRaw::u64(bits),
        NumberType::F32 => ValRaw::f32(bits as u32),
        NumberType::F64 => ValRaw::f64(bits),
    }
}
