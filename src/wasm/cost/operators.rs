//! Instructions that become many.

use wasmparser::{CompositeInnerType, Operator, ValidatorResources, WasmModuleResources};

/// What an instruction becomes, beyond what any does.
#[derive(Clone, Copy, Default)]
pub struct Expansion {
    /// So many ordinary instructions.
    pub operators: u64,
    /// So many blocks, weighed as in [`super::function`].
    pub ways: f64,
    /// So many places at which the collector may run, or an exception come out.
    pub calls: u64,
    /// How many operands it takes that do not live across those.
    pub operands: u64,
}

impl Expansion {
    const fn taking(self, operands: u64) -> Self {
        Self { operands, ..self }
    }
}

const fn of(operators: u64, ways: f64, calls: u64) -> Expansion {
    Expansion { operators, ways, calls, operands: 0 }
}

/// What becomes of this one.
pub fn expansion(
    operator: &Operator<'_>,
    resources: &ValidatorResources,
    signature: impl Fn(u32) -> Option<(u64, u64)>,
) -> Expansion {
    let values = |ty: Option<u32>| ty.and_then(&signature).map_or(0, |(params, results)| (params + results) * 5 / 4);
    match operator {
        Operator::Call { function_index } | Operator::ReturnCall { function_index } => {
            of(3 + values(resources.type_index_of_function(*function_index)), 0.0, 1)
        }
        Operator::CallIndirect { type_index, .. } | Operator::ReturnCallIndirect { type_index, .. } => {
            of(20 + values(Some(*type_index)), 4.0, 2)
        }
        Operator::CallRef { type_index } | Operator::ReturnCallRef { type_index } => {
            of(4 + values(Some(*type_index)), 0.0, 1)
        }
        Operator::MemoryGrow { .. }
        | Operator::MemoryFill { .. }
        | Operator::MemoryCopy { .. }
        | Operator::MemoryInit { .. } => of(16, 1.0, 1),
        Operator::TableGet { .. } => of(20, 2.5, 2),
        Operator::TableSet { .. } => of(40, 5.0, 4),
        Operator::TableGrow { .. }
        | Operator::TableFill { .. }
        | Operator::TableCopy { .. }
        | Operator::TableInit { .. } => of(70, 5.0, 4),
        Operator::StructNew { struct_type_index } | Operator::StructNewDefault { struct_type_index } => {
            let ty = resources.sub_type_at(*struct_type_index).map(|ty| &ty.composite_type.inner);
            let (mut plain, mut references) = (0, 0);
            if let Some(CompositeInnerType::Struct(ty)) = ty {
                references = ty.fields.iter().filter(|field| is_reference(field)).count() as u64;
                plain = ty.fields.len() as u64 - references;
            }
            let expansion = of(20 + plain + 9 * references, 4.0 + references as f64, 1 + references);
            match operator {
                Operator::StructNew { .. } => expansion.taking(plain + references),
                _ => expansion,
            }
        }
        Operator::ArrayNewFixed { array_type_index, array_size } => {
            let is_reference = match resources.sub_type_at(*array_type_index).map(|ty| &ty.composite_type.inner) {
                Some(CompositeInnerType::Array(ty)) => is_reference(&ty.0),
                _ => false,
            };
            let size = u64::from(*array_size);
            let expansion = match is_reference {
                true => of(40 + 30 * size, 4.0 + size as f64, 2 + size),
                false => of(40 + 13 * size, 4.0, 2),
            };
            expansion.taking(size)
        }
        Operator::StructGet { struct_type_index, field_index }
        | Operator::StructSet { struct_type_index, field_index } => {
            let ty = resources.sub_type_at(*struct_type_index).map(|ty| &ty.composite_type.inner);
            match ty {
                Some(CompositeInnerType::Struct(ty))
                    if ty.fields.get(*field_index as usize).is_some_and(is_reference) =>
                {
                    of(30, 2.5, 2)
                }
                _ => of(2, 0.0, 0),
            }
        }
        Operator::ArrayGet { array_type_index } | Operator::ArraySet { array_type_index } => {
            match resources.sub_type_at(*array_type_index).map(|ty| &ty.composite_type.inner) {
                Some(CompositeInnerType::Array(ty)) if is_reference(&ty.0) => of(60, 4.0, 4),
                _ => of(10, 0.0, 0),
            }
        }
        Operator::ArrayNew { .. } | Operator::ArrayNewDefault { .. } => of(48, 4.0, 2),
        Operator::ArrayNewData { .. } | Operator::ArrayNewElem { .. } => of(80, 5.0, 4),
        Operator::ArrayFill { .. } | Operator::ArrayInitData { .. } | Operator::ArrayInitElem { .. } => of(110, 5.0, 4),
        Operator::ArrayCopy { .. } => of(240, 8.0, 8),
        Operator::GlobalGet { global_index } | Operator::GlobalSet { global_index } => {
            match resources.global_at(*global_index) {
                Some(global) if global.content_type.is_reference_type() => of(40, 4.0, 3),
                _ => of(1, 0.0, 0),
            }
        }
        Operator::RefTestNonNull { .. }
        | Operator::RefTestNullable { .. }
        | Operator::RefCastNonNull { .. }
        | Operator::RefCastNullable { .. }
        | Operator::BrOnCast { .. }
        | Operator::BrOnCastFail { .. } => of(40, 5.0, 1),
        Operator::Throw { .. } | Operator::ThrowRef => of(20, 1.0, 2),
        _ => Expansion::default(),
    }
}

fn is_reference(field: &wasmparser::FieldType) -> bool {
    matches!(field.element_type, wasmparser::StorageType::Val(wasmparser::ValType::Ref(_)))
}
