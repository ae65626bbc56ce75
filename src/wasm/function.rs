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

    #[inline]
    fn has_64_bits(self) -> bool {
        matches!(self, Self::I64 | Self::F64)
    }

    /// What a value of this type holds; in its low half, if it has 32 bits.
    #[inline]
    fn bits_of(self, value: &ValRaw) -> u64 {
        // The bits of floats lie where those of integers do.
        if self.has_64_bits() { value.get_u64() } else { u64::from(value.get_u32()) }
    }

    /// The value of this type that holds these bits.
    #[inline]
    fn raw_of(self, bits: u64) -> ValRaw {
        if self.has_64_bits() { ValRaw::u64(bits) } else { ValRaw::u32(bits as u32) }
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
    /// child of a fork those of the parent are never freed. Nobody reads it here.
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

/// Defines a host function for guests, in place of one of the same name that was defined before.
pub(super) fn define(linker: &mut Linker<Ctx>, engine: &Engine, offer: &Offer) -> wasmtime::Result<()> {
    let code = &offer.function.code;
    // The usual shapes have code of their own, whose loops are unrolled: a call of a host function is not much more.
    match (&*code.params, &*code.results) {
        (&[], &[]) => define_shape(linker, engine, offer, [], []),
        (&[], &[result]) => define_shape(linker, engine, offer, [], [result]),
        (&[a], &[]) => define_shape(linker, engine, offer, [a], []),
        (&[a], &[result]) => define_shape(linker, engine, offer, [a], [result]),
        (&[a, b], &[]) => define_shape(linker, engine, offer, [a, b], []),
        (&[a, b], &[result]) => define_shape(linker, engine, offer, [a, b], [result]),
        _ => {
            let code = Arc::clone(code);
            let ty = func_type(engine, &code.params, &code.results);
            let call = move |caller: Caller<'_, Ctx>, values: &mut [MaybeUninit<ValRaw>]| {
                let count = code.params.len() + code.results.len();
                let (mut stack, mut heap) = ([ZERO; ON_STACK], Vec::new());
                let numbers = stack.get_mut(..count).unwrap_or_else(|| {
                    heap.resize(count, ZERO);
                    &mut heap
                });
                let (inputs, outputs) = numbers.split_at_mut(code.params.len());
                dispatch(&code, (&code.params, inputs), (&code.results, outputs), caller, values);
                Ok(())
            };
            // SAFETY: `dispatch` reads as many arguments of the types as `ty` has, and writes as many results, both
            // from the same lists; the types are numbers, so no value outlives a collector's root.
            unsafe { linker.func_new_unchecked(&offer.namespace, &offer.function.name, ty, call)? };
            Ok(())
        }
    }
}

/// The same for a number of parameters and results that is known when this is compiled; these are their types.
fn define_shape<const P: usize, const R: usize>(
    linker: &mut Linker<Ctx>,
    engine: &Engine,
    offer: &Offer,
    params: [NumberType; P],
    results: [NumberType; R],
) -> wasmtime::Result<()> {
    let code = Arc::clone(&offer.function.code);
    let ty = func_type(engine, &params, &results);
    let call = move |caller: Caller<'_, Ctx>, values: &mut [MaybeUninit<ValRaw>]| {
        dispatch(&code, (&params, &mut [ZERO; P]), (&results, &mut [ZERO; R]), caller, values);
        Ok(())
    };
    // SAFETY: as above: `ty` is made of `params` and `results`, which `dispatch` goes by.
    unsafe { linker.func_new_unchecked(&offer.namespace, &offer.function.name, ty, call)? };
    Ok(())
}

fn func_type(engine: &Engine, params: &[NumberType], results: &[NumberType]) -> FuncType {
    FuncType::new(engine, params.iter().map(|ty| ty.wasm()), results.iter().map(|ty| ty.wasm()))
}

/// How many arguments and results of an unusual shape stay on the stack; more than that go to the heap.
const ON_STACK: usize = 8;

const ZERO: Number = Number { kind: 0, bits: 0 };

/// The dispatch point: every call of a guest to a function of the user passes here. `values` begins with the
/// arguments, which the results overwrite. `inputs` and `outputs` are zero, and as many as `params` and `results`.
#[inline(always)]
fn dispatch(
    code: &UserCode,
    (params, inputs): (&[NumberType], &mut [Number]),
    (results, outputs): (&[NumberType], &mut [Number]),
    mut caller: Caller<'_, Ctx>,
    values: &mut [MaybeUninit<ValRaw>],
) {
    for ((input, ty), value) in inputs.iter_mut().zip(params).zip(&values[..params.len()]) {
        // SAFETY: wasmtime initialises as many values as the function has parameters, which are of these types.
        let value = unsafe { value.assume_init_ref() };
        *input = Number { kind: *ty as u32, bits: ty.bits_of(value) };
    }
    for (output, ty) in outputs.iter_mut().zip(results) {
        output.kind = *ty as u32;
    }

    let mut access = Access::new(&mut caller);
    access.begin_callback();
    access.lend(|current| (code.callback)(current, inputs, outputs));

    // A callback may have overwritten the types; the declared ones count.
    for ((value, ty), output) in values[..results.len()].iter_mut().zip(results).zip(outputs) {
        value.write(ty.raw_of(output.bits));
    }
}
